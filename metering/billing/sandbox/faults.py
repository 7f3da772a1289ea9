"""What goes wrong on demand. Set through POST /sandbox/faults, used up by the requests that meet them."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

KINDS: Final = {
    "timeout_before": "no answer, and nothing happens; the request hangs until the caller leaves",
    "timeout_after": "it happens, and the answer never comes",
    "reset_before": "the connection breaks, and nothing happens",
    "reset_after": "it happens, and the connection breaks before the answer",
    "conflict": "409, nothing happens",
    "rate_limit": "429, nothing happens; with `headers` such as Retry-After or Stripe-Should-Retry",
    "error_before": "500 that is kept under the Idempotency-Key, and nothing happens",
    "error_after": "500 that is kept under the Idempotency-Key, and yet it happens",
    "html": "502 with a page of HTML of somebody on the way, nothing happens",
    "slow_body": "it happens, and half of the answer comes until the caller leaves",
    "card_decline": "the next payment is declined",
    "authentication_required": "the next payment needs its payer",
}
"""Every kind and what it does."""

PAYMENTS: Final = frozenset({"card_decline", "authentication_required"})


@dataclass(slots=True)
class Fault:
    """One switch: `count` requests whose method and path match meet it. `seconds` ends a hanging one."""

    kind: str
    path: str = "*"
    method: str = "*"
    count: int = 1
    seconds: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises TypeError for what would break each request that meets it."""
        texts = [self.kind, self.path, self.method]
        if isinstance(self.headers, dict):
            texts += [*self.headers, *self.headers.values()]
        fits = all(isinstance(text, str) and text.isprintable() for text in texts) and isinstance(self.count, int)
        if not fits or not isinstance(self.seconds, int | float | None) or not isinstance(self.headers, dict):
            raise TypeError("`count` and `seconds` are numbers, `headers` are names and texts")

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Faults:
    """All switches that are set, the oldest first."""

    def __init__(self) -> None:
        self._set: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Set one. Raises ValueError for a kind that there is not."""
        if fault.kind not in KINDS:
            raise ValueError(f"there is no fault {fault.kind!r}; there are {', '.join(KINDS)}")
        self._set.append(fault)

    def clear(self) -> None:
        """Take all back."""
        self._set.clear()

    def shown(self) -> list[dict[str, Any]]:
        """Those that are still set."""
        return [fault.shown() for fault in self._set]

    def take(self, *kinds: str, method: str = "*", path: str = "*") -> Fault | None:
        """The oldest of these kinds that this request meets, one count less of it; None where there is none."""
        for fault in self._set:
            if fault.kind in kinds and _meets(method, fault.method) and _meets(path, fault.path):
                fault.count -= 1
                if fault.count < 1:
                    self._set.remove(fault)
                return fault
        return None


def _meets(value: str, pattern: str) -> bool:
    return value == "*" or fnmatchcase(value, pattern)
