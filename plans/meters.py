"""What an event of another system counts: rules over its type and its data, the first that fits decides.

Without a rule an event of the type `usage.<feature>` counts `data.quantity` units (one where it says none) of that
feature. `data` is the event's own JSON; a path such as `$.usage.tokens` names a place in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from plans.limits import QUANTITY_MAX

TYPE_PREFIX: Final = "usage."
"""Of the types that need no rule: the feature's name follows."""

ONE: Final = 1
"""What an event counts that says no quantity."""

Steps: TypeAlias = tuple[str, ...]
Scalar: TypeAlias = str | int | bool


def steps_of(path: str) -> Steps:
    """The keys that a path (`$.usage.tokens`) names, outermost first."""
    return tuple(path.split(".")[1:])


@dataclass(frozen=True, slots=True)
class Count:
    """One feature that a rule counts: so many units, or as many as stand at a path of the data."""

    feature: str
    quantity: int | Steps = ONE


@dataclass(frozen=True, slots=True)
class MeterRule:
    """Events of `type` whose data has every value of `match` at its path count all of `counts`, or none of them.

    `named` says that it stands in no file: the type names the feature.
    """

    type: str
    match: tuple[tuple[Steps, Scalar], ...]
    counts: tuple[Count, ...]
    named: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a quantity could not be taken from the data: the place, and what is wrong there."""

    steps: Steps
    reason: str


Measured: TypeAlias = tuple[tuple[str, int], ...]
"""Features in the rule's order, each with its units."""


class Meters:
    """The rules of a catalogue, by type. Two with the same rules are equal."""

    __slots__ = ("_by_type", "rules")

    def __init__(self, rules: Sequence[MeterRule] = ()) -> None:
        self.rules = tuple(rules)
        self._by_type: dict[str, list[MeterRule]] = {}
        for rule in self.rules:
            self._by_type.setdefault(rule.type, []).append(rule)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Meters) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def rule_of(self, event_type: str, data: object) -> MeterRule | None:
        """The first rule, in the file's order, that this event fits; else the rule of its name, if it has one."""
        for rule in self._by_type.get(event_type, ()):
            if all(_same(value_at(data, steps), value) for steps, value in rule.match):
                return rule
        feature = event_type.removeprefix(TYPE_PREFIX)
        if feature == event_type:
            return None
        quantity = ("quantity",) if isinstance(data, Mapping) and "quantity" in data else ONE
        return MeterRule(event_type, (), (Count(feature, quantity),), named=True)


def measured(rule: MeterRule, data: object) -> Measured | list[Unfit]:
    """What an event with this data counts by its rule, or everything that keeps it from being counted."""
    found = [(count.feature, _units(count.quantity, data)) for count in rule.counts]
    unfit = [units for _, units in found if isinstance(units, Unfit)]
    return unfit or tuple((feature, units) for feature, units in found if isinstance(units, int))


def _units(quantity: int | Steps, data: object) -> int | Unfit:
    if isinstance(quantity, int):
        return quantity
    value = value_at(data, quantity)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 5.0 is 5, as in JSON Schema
    if value is None:
        return Unfit(quantity, "is missing or null")
    if type(value) is not int or not 1 <= value <= QUANTITY_MAX:
        return Unfit(quantity, f"is not a whole number from 1 to {QUANTITY_MAX}")
    return value


def value_at(data: object, steps: Steps) -> Any:
    """What stands at a path of the data; None where nothing does."""
    for step in steps:
        if not isinstance(data, Mapping):
            return None
        data = data.get(step)
    return data


def _same(found: object, wanted: Scalar) -> bool:
    """Equal as JSON is: `true` is not 1, and 5.0 is 5."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return found == wanted


def unreached(rules: Sequence[tuple[str, Mapping[str, Scalar]]]) -> Iterator[tuple[int, int]]:
    """Rules, as type and match, that no event ever gets to: each with the earlier one that takes all of its events."""
    for later, (event_type, match) in enumerate(rules):
        wanted = set(map(_typed, match.items()))
        for earlier, (other_type, other) in enumerate(rules[:later]):
            if other_type == event_type and wanted.issuperset(map(_typed, other.items())):
                yield later, earlier
                break


def _typed(pair: tuple[str, Scalar]) -> tuple[str, type, Scalar]:
    return pair[0], type(pair[1]), pair[1]
