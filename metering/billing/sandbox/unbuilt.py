"""Parameters that Stripe has and the sandbox has not: 501 and no made-up effect, unlike those that nobody has (400)."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from metering.billing.sandbox.errors import ApiError, not_built
from metering.billing.sandbox.fields import FLAG, Field


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """Refuses whatever stands there."""

    def read(self, value: Any, name: str) -> Any:
        """See Field."""
        del value
        raise not_built(f"the parameter {name}")


@dataclass(frozen=True, slots=True)
class Only:
    """One word that is built; `others` are Stripe's too, and refused as not built."""

    words: tuple[str, ...]

    def read(self, value: Any, name: str) -> str:
        """See Field."""
        if value not in self.words:
            raise not_built(f"{name}={value}")
        return str(value)


@dataclass(frozen=True, slots=True)
class No:
    """A flag that may only say no."""

    def read(self, value: Any, name: str) -> bool:
        """See Field."""
        if FLAG.read(value, name):
            raise not_built(f"{name}=true")
        return False


@dataclass(frozen=True, slots=True)
class Url:
    """An address of the web."""

    def read(self, value: Any, name: str) -> str:
        """See Field."""
        good = isinstance(value, str) and value.isprintable() and " " not in value
        if not good or urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).netloc:
            raise ApiError("Not a valid URL", code="url_invalid", param=name)
        return str(value)


UNBUILT: Final = Unbuilt()
URL: Final = Url()


def unbuilt(names: str) -> dict[str, Field]:
    """Fields that refuse these names, which blanks part."""
    return dict.fromkeys(names.split(), UNBUILT)
