"""A CloudEvent -> UsageEvent: its attributes name the event, the meter rules of the catalogue say what it counts.

What comes out goes through the same door as a body of POST /usage/track; faults are told in the sender's words.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from metering.api.bodies import Faults, fault, faults_of, invalid, pointer_of
from metering.api.events import event_of, quick_event
from metering.api.models.ingest import CloudEvent, is_json_type
from metering.auth import Caller
from metering.errors import FeatureUnknown, Invalid
from metering.names import TEXT_CHARS_MAX, is_feature, is_text
from metering.usage import UsageEvent
from plans.catalogue import Catalogue
from plans.meters import Measured, MeterRule, Unfit, measured

ACTOR: Final = "actor"
"""The extension attribute, and the dimension, that says who in the organisation used it."""

_QUICK: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data", ACTOR})
_NATIVE_OF: Final = {"subject": "org_id", "id": "event_id", "source": "source", "time": "timestamp", ACTOR: ACTOR}
_PLACE_OF: Final = {f"/{native}": f"/{own}" for own, native in _NATIVE_OF.items()} | {
    "/metadata": "/data",
    "/quantity": "/data/quantity",
}


def cloud_event(value: Any, size: int, caller: Caller, catalogue: Catalogue, *, keep: bool = False) -> UsageEvent:
    """The event that a CloudEvent of `size` bytes in its JSON format says, with its details where `keep`.

    Raises Invalid with every fault, and FeatureUnknown where no rule says what it counts.
    """
    if _is_quick(value):
        rule = _rule(value, catalogue)
        counted = [] if rule is None else measured(rule, value.get("data"))
        if rule is not None and isinstance(counted, tuple):
            event = quick_event(
                _native(value, rule, counted, catalogue), size, caller.org_id, keep=keep, declared=catalogue.dimensions
            )
            if event is not None:
                event.also = counted[1:]
                return event
    return _checked(value, caller, catalogue, keep=keep)


def _is_quick(value: Any) -> bool:
    """Whether this is an ordinary event, but for what `quick_event` sees for itself."""
    if type(value) is not dict or not _QUICK.issuperset(value) or value.get("specversion") != "1.0":
        return False
    kind, event_type, data = value.get("datacontenttype"), value.get("type"), value.get("data")
    return (
        type(event_type) is str
        and is_text(event_type)
        and type(value.get("id")) is str
        and type(value.get("source")) is str
        and (data is None or type(data) is dict)
        and (kind is None or (type(kind) is str and len(kind) <= TEXT_CHARS_MAX and is_json_type(kind)))
    )


def _checked(value: Any, caller: Caller, catalogue: Catalogue, *, keep: bool) -> UsageEvent:
    """As `cloud_event`, with the model's help: all that is wrong is told at once."""
    faults: Faults = []
    try:
        CloudEvent.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error, CloudEvent)
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise invalid(faults) from None
    rule = _rule(value, catalogue)
    if rule is None:
        raise invalid(faults) if faults else no_rule(value["type"])
    counted = measured(rule, value.get("data"))
    if not isinstance(counted, tuple):
        faults += _unfit_faults(rule, counted)
        counted = tuple((count.feature, 1) for count in rule.counts)
    try:
        native = _native(value, rule, counted, catalogue)
        event = event_of(native, caller, catalogue.default_feature, keep=keep, declared=catalogue.dimensions)
    except Invalid as told:
        places = {entry["pointer"] for entry in faults}
        faults += [entry for entry in _retold(told) if entry["pointer"] not in places]
    if faults:
        raise invalid(faults)
    event.also = counted[1:]
    return event


def _rule(value: Mapping[str, Any], catalogue: Catalogue) -> MeterRule | None:
    """What the event counts by, if by anything."""
    rule = catalogue.meters.rule_of(value["type"], value.get("data"))
    return rule if rule is not None and is_feature(rule.counts[0].feature) else None


def no_rule(event_type: str) -> FeatureUnknown:
    """The 404 for a type that no meter rule speaks of."""
    return FeatureUnknown(f"no meter rule for type '{event_type[:TEXT_CHARS_MAX]}'")


def _native(value: Mapping[str, Any], rule: MeterRule, counted: Measured, catalogue: Catalogue) -> dict[str, Any]:
    """The event as a body of POST /usage/track would say it, the first of its features alone."""
    native = {name: value[own] for own, name in _NATIVE_OF.items() if value.get(own) is not None}
    native["feature"], native["quantity"] = counted[0]
    data = value.get("data")
    if isinstance(data, dict):
        native["metadata"] = data if rule.named else dict(_dimensions(data, catalogue))
    return native


def _dimensions(data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[tuple[str, Any]]:
    """What a rule of the file leaves of the data: the declared dimensions, for the data may be large and anything."""
    for name in catalogue.dimensions:
        value = data.get(name)
        if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= TEXT_CHARS_MAX):
            yield name, value


def _unfit_faults(rule: MeterRule, unfit: list[Unfit]) -> Faults:
    who = f"the default rule of '{rule.type}'" if rule.named else f"the meter rule of '{rule.type}'"
    return [
        fault(
            pointer_of(("data", *entry.steps)), "meter-quantity", f"{who} counts ${_dotted(entry)}: it {entry.reason}"
        )
        for entry in unfit
    ]


def _dotted(unfit: Unfit) -> str:
    return "".join(f".{step}" for step in unfit.steps)


def _retold(told: Invalid) -> Faults:
    """Faults of the native event with the places where a CloudEvent has these things."""
    faults: Any = told.extra["errors"]
    return [fault(_place(entry["pointer"]), entry["code"], entry["detail"]) for entry in faults]


def _place(pointer: str) -> str:
    head = "/" + pointer.split("/")[1] if pointer else ""
    return _PLACE_OF.get(head, head) + pointer[len(head) :]
