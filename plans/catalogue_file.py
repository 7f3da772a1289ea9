"""What a catalogue file may say: TOML text -> checked tables, or every fault of the file at once.

The shape of each table is a model in `catalogue_tables`; the `description` of a field is the cure a fault shows for it.
Rules that concern several tables are checked on the raw data, so that one fault never hides another.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from plans.catalogue_tables import ALONE, FEATURES_MAX, INSIDE, CatalogueTable, RuleTable
from plans.meters_file import PATH_CURE, meter_faults
from plans.packages_file import package_faults
from plans.prices_file import price_faults

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


def _fields_at(path: Path) -> tuple[dict[str, FieldInfo], FieldInfo]:
    """The fields of the table that a path leads into, and the field its fault belongs to."""
    model: type[BaseModel] = CatalogueTable
    field = CatalogueTable.model_fields[path[0]] if path[0] in CatalogueTable.model_fields else FieldInfo()
    steps = iter(path)
    for step in steps:
        if step not in model.model_fields:
            break
        field, inside = model.model_fields[step], INSIDE.get((model, step))
        if inside is None:
            break
        model = inside
        if inside not in ALONE:
            next(steps, None)
    return dict(model.model_fields), field


def _cross_faults(raw: Mapping[str, Any]) -> Iterator[_Found]:
    """Faults between tables. Whatever has the wrong shape counts as empty: its own fault is told already."""
    plans, features = _table(raw.get("plans")), _table(raw.get("features"))
    yield from _reference_faults(raw, "default_plan", plans)
    yield from _reference_faults(raw, "default_feature", features)
    yield from _stripe_meter_faults(features)
    yield from (_Found(*fault) for fault in meter_faults(raw.get("meters"), features, _meant))
    yield from (_Found(*fault) for fault in package_faults(raw))
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
    yield from _stripe_price_faults(path, plan)
    rules = _table(plan.get("features"))
    for name in [feature for feature in features if feature not in rules]:
        cure = f'Add {name} = {{ limit = "unlimited" }}, a number, or {name} = {{ enabled = false }}.'
        yield _Found((*path, "features", name), "is missing", cure)
    for name, rule in rules.items():
        yield from _rule_faults((*path, "features", name), rule, features)


def _stripe_price_faults(path: Path, plan: Mapping[str, Any]) -> Iterator[_Found]:
    """Two Stripe prices where one is meant, and one for two things: whoever pays by the year would pay by the month."""
    yearly = _table(plan.get("yearly"))
    for place, priced in ((path, plan), ((*path, "yearly"), yearly)):
        if "stripe_price_env" in priced and "stripe_price_id" in priced:
            yield _Found((*place, "stripe_price_id"), "stands beside stripe_price_env", "Keep one of the two.")
    for key in ("stripe_price_env", "stripe_price_id"):
        if isinstance(yearly.get(key), str) and yearly[key] == plan.get(key):
            yield _Found((*path, "yearly", key), "is that of the month already", "Name the price of the year.")
    if yearly and plan.get("price_minor") in ("custom", 0):
        reason = f"stands beside price_minor = {json.dumps(plan['price_minor'])}"
        yield _Found((*path, "yearly"), reason, "Give a price of the month too, or remove it.")


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
