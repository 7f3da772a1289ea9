"""What a catalogue file may say of meters: the `[[meters]]` tables and the faults between them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from plans.limits import QUANTITY_MAX, TOTAL_MAX
from plans.meters import ONE, Count, MeterRule, Meters, Scalar, steps_of, unreached

METERS_MAX: Final = 200
MATCHES_MAX: Final = 8
COUNTS_MAX: Final = 8
"""Rules of a file, values one of them compares, features one event counts: each is looked at with every event."""

PATH_PATTERN: Final = r"^\$(\.[A-Za-z0-9_-]{1,64}){1,8}$"
PATH_CURE: Final = 'Give a path into the event\'s data, such as "$.model" or "$.usage.tokens".'

_TEXT_CHARS_MAX: Final = 200

Fault: TypeAlias = tuple[tuple[str, ...], str, str]
"""A fault between tables: where, what, and how to put it right."""

Meant: TypeAlias = Callable[[str, Iterable[str]], str]
"""The cure for a name that is close to a known one, or nothing."""


def _quantity(value: object) -> int | str:
    if type(value) is int and 1 <= value <= QUANTITY_MAX:
        return value
    if isinstance(value, str) and re.fullmatch(PATH_PATTERN[1:-1], value):
        return value
    raise PydanticCustomError("quantity", f"is not a whole number from 1 to {QUANTITY_MAX} or a path")


def _scalar(value: object) -> Scalar:
    if isinstance(value, int) and abs(value) <= TOTAL_MAX:
        return value
    if isinstance(value, str) and len(value) <= _TEXT_CHARS_MAX:
        return value
    raise PydanticCustomError("scalar", "is not a text, a whole number, true or false")


PathText: TypeAlias = Annotated[str, Field(pattern=PATH_PATTERN)]


class CountTable(BaseModel):
    """One feature that a rule counts."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    feature: str = Field(description="a feature of this file")
    quantity: Annotated[int | str, PlainValidator(_quantity)] = Field(
        default=ONE, description='a whole number of units, or a path into the event\'s data such as "$.tokens"'
    )


class MeterTable(BaseModel):
    """One rule: events of a type, perhaps with certain values in their data, count these features."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: str = Field(min_length=1, max_length=255, description='the `type` of the events, such as "llm.completion"')
    match: dict[PathText, Annotated[Scalar, PlainValidator(_scalar)]] = Field(
        default={},
        max_length=MATCHES_MAX,
        description='up to 8 paths, each with the text, whole number, true or false it has to be: { "$.model" = "x" }',
    )
    features: tuple[CountTable, ...] = Field(
        strict=False,
        min_length=1,
        max_length=COUNTS_MAX,
        description='1 to 8 tables { feature = "tokens", quantity = "$.tokens" }',
    )


def meters_of(tables: Iterable[MeterTable]) -> Meters:
    """The rules that checked tables say."""
    return Meters([_rule(table) for table in tables])


def _rule(table: MeterTable) -> MeterRule:
    match = tuple((steps_of(path), value) for path, value in table.match.items())
    counts = (
        Count(c.feature, c.quantity if isinstance(c.quantity, int) else steps_of(c.quantity)) for c in table.features
    )
    return MeterRule(table.type, match, tuple(counts))


def meter_faults(raw: object, features: Mapping[str, Any], meant: Meant) -> Iterator[Fault]:
    """Faults between the raw tables and the file's features. What has the wrong shape is told elsewhere."""
    rules = raw if isinstance(raw, list) else []
    for number, rule in enumerate(rules):
        counts = rule.get("features") if isinstance(rule, dict) else None
        yield from _count_faults(("meters", str(number), "features"), counts, features, meant)
    heads = [(number, *head) for number, rule in enumerate(rules) if (head := _head(rule)) is not None]
    for later, earlier in unreached([(event_type, match) for _, event_type, match in heads]):
        reason = f"is never reached: meters.{heads[earlier][0]} takes all of its events"
        yield (
            ("meters", str(heads[later][0])),
            reason,
            "Move it before that one, or remove it: the first that fits decides.",
        )


def _head(rule: object) -> tuple[str, Mapping[str, Scalar]] | None:
    """Type and match of a rule that has the right shape."""
    if not isinstance(rule, dict):
        return None
    event_type, match = rule.get("type"), rule.get("match", {})
    if not isinstance(event_type, str) or not isinstance(match, dict):
        return None
    return (event_type, match) if all(isinstance(value, str | int) for value in match.values()) else None


def _count_faults(path: tuple[str, ...], counts: object, features: Mapping[str, Any], meant: Meant) -> Iterator[Fault]:
    """A feature that the file has not, or one that the rule counts twice."""
    seen: set[str] = set()
    for number, count in enumerate(counts if isinstance(counts, list) else []):
        name = count.get("feature") if isinstance(count, dict) else None
        if not isinstance(name, str):
            continue
        place = (*path, str(number), "feature")
        if name not in features:
            yield (
                place,
                f"{name[:60]!r} is not a feature of this file",
                meant(name, features) or "Add it to [features].",
            )
        elif name in seen:
            yield place, f"{name!r} is counted by this rule already", "Count each feature once."
        seen.add(name)
