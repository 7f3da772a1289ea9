"""What a catalogue file may say: TOML text -> checked tables, or every fault of the file at once.

The shape of each table is a model below; the `description` of a field is the cure a fault shows for it. Rules
that concern several tables are checked on the raw data, so that one fault never hides another.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from plans.limits import LIMIT_MAX, TOTAL_MAX, OnLimit
from plans.meters_file import METERS_MAX, PATH_CURE, CountTable, MeterTable, meter_faults
from plans.periods import Reset
from plans.prices_file import TIERS_ABOUT, TIERS_MAX, TierTable, price_faults
from plans.subwindows import Per
from plans.tiers import PriceModel

NAME_PATTERN: Final = "^[a-z][a-z0-9_]{0,63}$"
"""Plans and features: their names become parts of keys and metric labels, so no ':', '|' or blank."""

_NAME_CURE: Final = "Use a-z, 0-9 and _, a letter first, at most 64 characters."
_UNKNOWN_CURE: Final = "Remove it or correct its spelling."
_SYNTAX_CURE: Final = "Correct the TOML there; nothing else was checked yet."
_SHOWN_LENGTH_MAX: Final = 60
_BYTE_ORDER_MARK: Final = "\ufeff"  # some editors put it first; nobody sees it
_BARE_KEY: Final = re.compile("[A-Za-z0-9_-]+")

_REASONS: Final[Mapping[str, str]] = {
    "bool_type": "is not true or false",
    "dict_type": "is not a table",
    "enum": "is not {expected}",
    "greater_than_equal": "is less than {ge}",
    "int_type": "is not a whole number",
    "less_than_equal": "is more than {le}",
    "model_type": "is not a table",
    "string_pattern_mismatch": "has the wrong form",
    "string_too_long": "is longer than {max_length} characters",
    "string_too_short": "is empty",
    "string_type": "is not text",
    "too_long": "has more than {max_length} entries",
    "too_short": "has fewer than {min_length} entries",
    "tuple_type": "is not a list",
}

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file: where (`key`: a dotted path, or a line), what, and how to put it right."""

    file: str
    key: str
    reason: str
    cure: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.reason}. {self.cure}"


FEATURES_MAX: Final = 200
"""Features of one catalogue: a script handles all of an organisation's fields at once, and Lua passes about 8,000."""


WINDOWS_MAX: Final = 8
"""Sub-windows of one rule: each is read and written with every event it holds."""

DIMENSIONS_MAX: Final = 8
DIMENSION_VALUES_MAX: Final = 1000
"""Declared dimensions, and values of one of them a month: each value is a series of hours in history."""


class CatalogueError(ValueError):
    """A catalogue file was refused. `faults` holds all of them, never none; `str()` shows one a line."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was most likely meant to be, whatever its case; None if none is close.

    A name that only one of them begins with is that one, cut short: difflib would favour a shorter neighbour.
    """
    by_lower = {known.lower(): known for known in names}
    longer = [known for known in by_lower if known.startswith(name.lower())]
    close = longer if len(longer) == 1 else get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def _whole_or(word: str, largest: int) -> PlainValidator:
    """A validator of `word` (kept as None) or a whole number from 0 to `largest`."""

    def check(value: object) -> int | None:
        if value == word:
            return None
        if type(value) is int and 0 <= value <= largest:
            return value
        raise PydanticCustomError("whole_or", f'is not "{word}" or a whole number from 0 to {largest}')

    return PlainValidator(check)


Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
Limit: TypeAlias = Annotated[int | None, _whole_or("unlimited", LIMIT_MAX)]
Price: TypeAlias = Annotated[int | None, _whole_or("custom", TOTAL_MAX)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LeaseExpiry(StrEnum):
    """What becomes of a lease that was not settled in time."""

    CHARGE = "charge"  # all of it counts as used
    RELEASE = "release"  # none of it does


class WindowTable(_Table):
    """One limit beside the period's: at most `limit` units in each `per`, or in the last one where `rolling`."""

    limit: int = Field(ge=0, le=LIMIT_MAX, description="a whole number of units")
    per: Per = Field(strict=False, description="minute, hour, day or week")
    rolling: bool = Field(default=False, description="true for the last so much time, or leave it out")


class RateTable(_Table):
    """How many events of one organisation may come a `per`; `burst` of them at once."""

    events: int = Field(ge=1, le=10**9, description="a whole number of events, at least 1")
    per: Per = Field(strict=False, description="minute, hour, day or week")
    burst: int = Field(default=1, ge=1, le=10**6, description="a whole number of events, at least 1")


class RuleTable(_Table):
    """What a plan says of one feature. Only a feature that is off may leave `limit` out."""

    limit: Limit = Field(default=0, description='a whole number of units a period, or "unlimited"')
    on_limit: OnLimit | None = Field(
        default=None, strict=False, description="overage, block or cap, or leave it to the plan's on_limit"
    )
    enabled: bool = Field(default=True, description="true, or false where the plan leaves the feature out")
    windows: tuple[WindowTable, ...] = Field(
        default=(), strict=False, max_length=WINDOWS_MAX, description='up to 8 tables { limit = 5, per = "hour" }'
    )


class FeatureTable(_Table):
    """One feature and how its overage is sold: `overage_price_minor` per `overage_per` units, or by tiers."""

    title: Text = Field(description="a short text to show people")
    unit: Text = Field(description='the word for one unit, such as "scan"')
    # 100 is the longest event_name a Stripe meter takes.
    stripe_meter_event: Text | None = Field(default=None, description="the event name of a Stripe meter")
    overage_price_minor: int | None = Field(
        default=None, ge=0, le=TOTAL_MAX, description="a whole number of minor units (cents)"
    )
    overage_per: int = Field(
        default=1, ge=1, le=TOTAL_MAX, description="the number of units overage_price_minor buys, at least 1"
    )
    overage_model: PriceModel | None = Field(
        default=None, strict=False, description="flat or package, or graduated or volume with overage_tiers"
    )
    overage_tiers: tuple[TierTable, ...] = Field(
        default=(),
        strict=False,
        max_length=TIERS_MAX,
        description=TIERS_ABOUT,
    )
    lease_expiry: LeaseExpiry = Field(
        default=LeaseExpiry.CHARGE, strict=False, description="charge or release: what becomes of an unsettled lease"
    )


class PlanTable(_Table):
    """One plan; `price_minor` is for one period."""

    title: Text = Field(description="a short text to show people")
    reset: Reset = Field(strict=False, description="calendar or anniversary")
    on_limit: OnLimit = Field(strict=False, description="overage, block or cap")
    price_minor: Price = Field(description='a whole number of minor units (cents), or "custom"')
    stripe_price_env: str | None = Field(
        default=None,
        pattern="^[A-Z][A-Z0-9_]{0,63}$",
        description="the name of the environment variable that holds the Stripe price id",
    )
    stripe_price_id: str | None = Field(
        default=None, pattern="^price_[A-Za-z0-9_]{1,94}$", description='a Stripe price id ("price_...")'
    )
    rate_limit: RateTable | None = Field(
        default=None, description='a table { events = 100, per = "minute", burst = 20 }'
    )
    features: dict[str, RuleTable] = Field(description="a table with one entry for each feature of the file")


class CatalogueTable(_Table):
    """The whole file."""

    version: int = Field(ge=1, le=TOTAL_MAX, description="a whole number from 1, raised with every change")
    currency: str = Field(pattern="^[a-z]{3}$", description='an ISO 4217 code in lower case, such as "usd"')
    default_plan: str = Field(description="the plan of a new organisation")
    default_feature: str = Field(description="the feature that counts events which name none")
    dimensions: dict[Name, Annotated[int, Field(ge=1, le=DIMENSION_VALUES_MAX)]] = Field(
        default={},
        max_length=DIMENSIONS_MAX,
        description="up to 8 names, each with its most values a month (1 to 1000)",
    )
    features: dict[Name, FeatureTable] = Field(description="a table [features.<name>] for each feature")
    plans: dict[Name, PlanTable] = Field(description="a table [plans.<name>] for each plan")
    meters: tuple[MeterTable, ...] = Field(
        default=(), strict=False, max_length=METERS_MAX, description="a table [[meters]] for each rule, up to 200"
    )


class _Found(NamedTuple):
    """A fault before its file and dotted key are known."""

    path: Path
    reason: str
    cure: str


def read(text: str, file: str) -> CatalogueTable:
    """The checked tables of a TOML catalogue. `file` is only shown. Raises CatalogueError."""
    raw = _toml(text, file)
    try:
        table, found = CatalogueTable.model_validate(raw), []
    except ValidationError as error:
        table, found = None, [_shape_fault(detail) for detail in error.errors(include_url=False)]
    found += _cross_faults(raw)
    if table is None or found:
        raise CatalogueError(tuple(Fault(file, _dotted(path), reason, cure) for path, reason, cure in found))
    return table


def _toml(text: str, file: str) -> dict[str, Any]:
    """The raw data. Deep nesting and endless digits are faults of the file too, not crashes."""
    try:
        return tomllib.loads(text.removeprefix(_BYTE_ORDER_MARK))
    except RecursionError:
        raise CatalogueError((Fault(file, "file", "is nested too deeply", _SYNTAX_CURE),)) from None
    except ValueError as error:
        raise CatalogueError((Fault(file, *_place(str(error), text), _SYNTAX_CURE),)) from error


def _place(message: str, text: str) -> tuple[str, str]:
    """The line and the reason of a TOML parser's message: Python 3.11 tells the line only inside the text."""
    if at := re.search(r" \(at line (\d+), column \d+\)$", message):
        return f"line {at[1]}", message[: at.start()]
    last_line = text.count("\n") + 1
    if message.endswith(at_end := " (at end of document)"):
        return f"line {last_line}", message.removesuffix(at_end)
    return "file", message


def _shape_fault(detail: ErrorDetails) -> _Found:
    """A fault of one table's shape, as pydantic found it."""
    path = tuple(map(str, detail["loc"]))
    if path[-1] == "[key]" and path[0] == "meters":
        return _Found(path[:-1], "is not a path", PATH_CURE)
    if path[-1] == "[key]":
        return _Found(path[:-1], "is not a name", _NAME_CURE)
    fields, field = _fields_at(path)
    if detail["type"] == "extra_forbidden":
        return _Found(path, "is not a known key here", _meant(path[-1], fields) or _UNKNOWN_CURE)
    cure = f"Give {field.description}."
    if detail["type"] == "missing":
        return _Found(path, "is missing", cure)
    template = _REASONS.get(detail["type"])
    reason = template.format_map(detail.get("ctx", {})) if template else detail["msg"]
    return _Found(path, f"{_shown(detail['input'])} {reason}", cure)


def _meant(name: str, names: Iterable[str]) -> str:
    """The cure for a name that is close to a known one, or nothing."""
    known = nearest(name, names)
    return f"Did you mean {known}?" if known else ""


_INSIDE: Final[Mapping[tuple[type[BaseModel], str], type[BaseModel]]] = {
    (CatalogueTable, "features"): FeatureTable,
    (CatalogueTable, "plans"): PlanTable,
    (CatalogueTable, "meters"): MeterTable,
    (MeterTable, "features"): CountTable,
    (PlanTable, "features"): RuleTable,
    (PlanTable, "rate_limit"): RateTable,
    (RuleTable, "windows"): WindowTable,
    (FeatureTable, "overage_tiers"): TierTable,
}
"""The table that stands in a field of another one; but for `rate_limit`, under a name or number of its own."""


def _fields_at(path: Path) -> tuple[dict[str, FieldInfo], FieldInfo]:
    """The fields of the table that a path leads into, and the field its fault belongs to."""
    model: type[BaseModel] = CatalogueTable
    field = CatalogueTable.model_fields[path[0]] if path[0] in CatalogueTable.model_fields else FieldInfo()
    steps = iter(path)
    for step in steps:
        if step not in model.model_fields:
            break
        field, inside = model.model_fields[step], _INSIDE.get((model, step))
        if inside is None:
            break
        model = inside
        if inside is not RateTable:
            next(steps, None)
    return dict(model.model_fields), field


def _cross_faults(raw: Mapping[str, Any]) -> Iterator[_Found]:
    """Faults between tables. Whatever has the wrong shape counts as empty: its own fault is told already."""
    plans, features = _table(raw.get("plans")), _table(raw.get("features"))
    yield from _reference_faults(raw, "default_plan", plans)
    yield from _reference_faults(raw, "default_feature", features)
    yield from _stripe_meter_faults(features)
    yield from (_Found(*fault) for fault in meter_faults(raw.get("meters"), features, _meant))
    for name, feature in features.items():
        yield from (_Found(*fault) for fault in price_faults(("features", name), _table(feature)))
    if len(features) > FEATURES_MAX:
        reason = f"has {len(features)} tables, more than {FEATURES_MAX}"
        yield _Found(("features",), reason, "Meter variants of one thing as one feature.")
    for name, plan in plans.items():
        yield from _plan_faults(("plans", name), _table(plan), features)


def _reference_faults(raw: Mapping[str, Any], key: str, names: Mapping[str, Any]) -> Iterator[_Found]:
    """A default that names no table of the file."""
    name = raw.get(key)
    if isinstance(name, str) and name not in names:
        cure = _meant(name, names) or f"Give one of: {', '.join(names) or '(there is none yet)'}."
        yield _Found((key,), f"{_shown(name)} is not in this file", cure)


def _stripe_meter_faults(features: Mapping[str, Any]) -> Iterator[_Found]:
    """Two features on one Stripe meter: neither could be compared with Stripe's sum any more."""
    owners: dict[str, str] = {}
    for name, feature in features.items():
        meter = _table(feature).get("stripe_meter_event")
        if isinstance(meter, str) and (owner := owners.setdefault(meter, name)) != name:
            reason = f"{_shown(meter)} is the meter of {owner} already"
            yield _Found(("features", name, "stripe_meter_event"), reason, "Give each feature its own meter.")


def _plan_faults(path: Path, plan: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[_Found]:
    """A plan with two Stripe prices, or that does not speak of each feature of the file and of no other."""
    if "stripe_price_env" in plan and "stripe_price_id" in plan:
        yield _Found((*path, "stripe_price_id"), "stands beside stripe_price_env", "Keep one of the two.")
    rules = _table(plan.get("features"))
    for name in [feature for feature in features if feature not in rules]:
        cure = f'Add {name} = {{ limit = "unlimited" }}, a number, or {name} = {{ enabled = false }}.'
        yield _Found((*path, "features", name), "is missing", cure)
    for name, rule in rules.items():
        yield from _rule_faults((*path, "features", name), rule, features)


def _rule_faults(path: Path, rule: object, features: Mapping[str, Any]) -> Iterator[_Found]:
    """A rule for a feature the file has not, or one that is on and says no limit."""
    if path[-1] not in features:
        cure = _meant(path[-1], features) or "Add the feature to [features], or remove it here."
        yield _Found(path, "is not a feature of this file", cure)
    if isinstance(rule, dict) and "limit" not in rule and rule.get("enabled") is not False:
        cure = f"Give {RuleTable.model_fields['limit'].description}."
        yield _Found((*path, "limit"), "is missing", cure)


def _table(value: object) -> dict[str, Any]:
    """The value if it is a table, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str:
    """The value as the fault shows it: short, on one line. Python refuses to print endless numbers."""
    try:
        shown = repr(value)
    except ValueError:
        return "this number"
    return shown if len(shown) <= _SHOWN_LENGTH_MAX else f"{shown[:_SHOWN_LENGTH_MAX]}..."


def _dotted(path: Path) -> str:
    """A path as TOML writes it: parts that are not bare keys stand in quotes."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in path)
