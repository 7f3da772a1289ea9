"""What goes wrong with webhooks on demand: set through POST /sandbox/deliveries, used up by those that meet it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

KINDS: Final = {
    "drop": "it is never sent",
    "delay": "it is sent `seconds` later",
    "duplicate": "it is sent twice",
    "two_ids": "the same change is told by two events",
    "reorder": "it is sent after the next one to the same endpoint",
    "forge": "the first attempt is signed with a secret that is not the endpoint's",
    "old": "the first attempt is signed as of an hour ago",
    "future": "the first attempt is signed as of an hour from now",
    "api_version": "a snapshot is of another version of the API",
    "outage": "nothing at all is sent for `seconds`, and then everything at once",
}
"""Every kind and what it does."""

OTHER_VERSION: Final = "2024-06-20"

SKEW_S: Final = 3600
FORGED: Final = "whsec_of_somebody_else"


@dataclass(slots=True)
class Switch:
    """One switch: `count` deliveries whose event type matches meet it."""

    kind: str
    type: str = "*"
    count: int = 1
    seconds: int = 60

    def __post_init__(self) -> None:
        """Raises TypeError for what would break each delivery that meets it."""
        if not (isinstance(self.type, str) and isinstance(self.count, int) and isinstance(self.seconds, int)):
            raise TypeError("`type` is a text, `count` and `seconds` are whole numbers")

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Switches:
    """All that are set, the oldest first."""

    def __init__(self) -> None:
        self._set: list[Switch] = []
        self.quiet_until_s = 0
        """The end of an outage."""

    def add(self, switch: Switch, now_s: int) -> None:
        """Set one; an outage begins at once. Raises ValueError for a kind that there is not."""
        if switch.kind not in KINDS:
            raise ValueError(f"there is no switch {switch.kind!r}; there are {', '.join(KINDS)}")
        if switch.kind == "outage":
            self.quiet_until_s = now_s + switch.seconds
        else:
            self._set.append(switch)

    def clear(self) -> None:
        """Take all back."""
        self._set.clear()
        self.quiet_until_s = 0

    def shown(self) -> list[dict[str, Any]]:
        """Those that are still set."""
        return [switch.shown() for switch in self._set]

    def take(self, event_type: str) -> list[Switch]:
        """Those that a delivery of this event meets at its first attempt, one count less of each."""
        met = [switch for switch in self._set if fnmatchcase(event_type, switch.type)]
        for switch in met:
            switch.count -= 1
        self._set = [switch for switch in self._set if switch.count > 0]
        return met
