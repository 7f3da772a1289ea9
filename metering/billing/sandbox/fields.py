"""What a call takes: declared once in its route, read and refused here in Stripe's words.

Values come as texts from forms and as JSON from /v2. An empty text unsets what is optional: it reads as None.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from metering.billing.sandbox.errors import ApiError

_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]{1,12})?")


class Field(Protocol):
    """Reads one value."""

    def read(self, value: Any, name: str) -> Any:
        """The value as its type, or ApiError 400; `name` as the caller wrote it, `a[b][0]`."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most `most` characters."""

    most: int = 5000

    def read(self, value: Any, name: str) -> str:
        """See Field."""
        if not isinstance(value, str):
            raise invalid(f"Invalid string: {value}", name)
        if len(value) > self.most:
            told = f"Invalid string: must be at most {self.most} characters"
            raise ApiError(told, code="parameter_invalid_string_too_long", param=name)
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [least, most]."""

    least: int = -(2**63)
    most: int = 2**63 - 1

    def read(self, value: Any, name: str) -> int:
        """See Field."""
        if isinstance(value, bool) or not _WHOLE.fullmatch(str(value)):
            raise ApiError(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
        number = int(value)
        if not self.least <= number <= self.most:
            told = f"This value must be between {self.least} and {self.most}."
            raise ApiError(told, code="parameter_invalid_integer", param=name)
        return number


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    def read(self, value: Any, name: str) -> bool:
        """See Field."""
        if value in {"true", True}:
            return True
        if value in {"false", False}:
            return False
        raise invalid(f"Invalid boolean: {value}", name)


@dataclass(frozen=True, slots=True)
class Decimal12:
    """A number with up to 12 decimal places; stays a text."""

    def read(self, value: Any, name: str) -> str:
        """See Field."""
        if not _DECIMAL.fullmatch(str(value)):
            raise ApiError(f"Invalid decimal: {value}; at most 12 places", code="parameter_invalid_decimal", param=name)
        return str(value)


class OneOf:
    """One of these words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def read(self, value: Any, name: str) -> str:
        """See Field."""
        if value not in self._words:
            raise invalid(f"Invalid {name}: must be one of {', '.join(self._words)}", name)
        return str(value)


@dataclass(frozen=True, slots=True)
class Texts:
    """A map of the caller's own names to texts: `metadata`, `payload`."""

    def read(self, value: Any, name: str) -> dict[str, str]:
        """See Field."""
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise invalid("Invalid hash", name)
        return value


@dataclass(frozen=True, slots=True)
class Many:
    """A list: `a[0]=x&a[1]=y` or `a[]=x` in a form."""

    of: Field
    most: int = 1000

    def read(self, value: Any, name: str) -> list[Any]:
        """See Field."""
        rows = list(value.values()) if isinstance(value, dict) and all(key.isdigit() for key in value) else value
        if not isinstance(rows, list):
            raise invalid("Invalid array", name)
        if len(rows) > self.most:
            raise invalid(f"Array {name} exceeded maximum {self.most} allowed elements.", name)
        return [self.of.read(row, f"{name}[{number}]") for number, row in enumerate(rows)]


class Either:
    """The first of these that reads the value."""

    def __init__(self, *fields: Field) -> None:
        self._fields = fields

    def read(self, value: Any, name: str) -> Any:
        """See Field."""
        for field in self._fields[:-1]:
            try:
                return field.read(value, name)
            except ApiError:
                continue
        return self._fields[-1].read(value, name)


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be there."""

    of: Field

    def read(self, value: Any, name: str) -> Any:
        """See Field."""
        return self.of.read(value, name)


class Fields:
    """An object with these parameters and no others."""

    def __init__(self, known: Mapping[str, Field] | None = None, /, **more: Field) -> None:
        self.known: Mapping[str, Field] = {**(known or {}), **more}

    def read(self, value: Any, name: str = "") -> dict[str, Any]:
        """See Field. Without a name it is the whole of the parameters."""
        if not isinstance(value, dict):
            raise invalid("Invalid object", name)
        for key in value:
            if key not in self.known:
                whole = _inside(name, key)
                raise ApiError(f"Received unknown parameter: {whole}", code="parameter_unknown", param=whole)
        for key, field in self.known.items():
            if isinstance(field, Need) and key not in value:
                whole = _inside(name, key)
                raise ApiError(f"Missing required param: {whole}.", code="parameter_missing", param=whole)
        return {key: _one(self.known[key], given, _inside(name, key)) for key, given in value.items()}


def invalid(message: str, param: str, code: str | None = None) -> ApiError:
    """What to raise for a value that does not do."""
    return ApiError(message, code=code, param=param)


def _one(field: Field, given: Any, name: str) -> Any:
    if given != "":
        return field.read(given, name)
    if isinstance(field, Need):
        told = f"You passed an empty string for '{name}', which cannot be unset."
        raise ApiError(told, code="parameter_invalid_empty", param=name)
    return None


def _inside(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key


TEXT: Final = Text()
WHOLE: Final = Whole()
COUNT: Final = Whole(least=0)
FLAG: Final = Flag()
DECIMAL: Final = Decimal12()
METADATA: Final = Texts()
LIST: Final[Mapping[str, Field]] = {"limit": Whole(1, 100), "starting_after": TEXT, "ending_before": TEXT}
"""What every list of /v1 takes: https://docs.stripe.com/api/pagination."""

CREATED: Final = Either(COUNT, Fields(gt=COUNT, gte=COUNT, lt=COUNT, lte=COUNT))
"""A moment in seconds, or bounds of it."""


def merged(old: Mapping[str, str], told: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata after a change: names that are told are set, an empty value takes its name out, None all of them."""
    return {} if told is None else {name: text for name, text in {**old, **told}.items() if text != ""}
