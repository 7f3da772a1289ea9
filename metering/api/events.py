"""Parsed JSON -> UsageEvent. The model decides what is taken; `quick_event` only knows its commonest yes by heart."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
from pydantic import ValidationError

from metering.api.bodies import Faults, fault, faults_of, invalid
from metering.api.models.fields import METADATA_KEYS_MAX
from metering.api.models.usage import TrackRequest
from metering.auth import Caller
from metering.moments import parse_ms
from metering.names import is_feature, is_org_id, is_text
from metering.usage import UsageEvent
from plans.limits import QUANTITY_MAX, OnLimit

_QUICK_FIELDS: Final = frozenset(
    {"org_id", "feature", "quantity", "metadata", "event_id", "source", "timestamp", "actor"}
)

QUICK_BYTES_MAX: Final = 1024
"""Metadata of a body this small fits its 8 KiB even if every number in it is written out in full."""

VALUE_CHARS_MAX: Final = 100
"""Longest value of a dimension: each is part of a field of history, hour after hour."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def quick_event(
    value: Any, size: int, default_org_id: str | None, *, keep: bool = False, declared: Collection[str] = ()
) -> UsageEvent | None:
    """The event of an ordinary body of `size` bytes, or None where only the model can tell.

    Whatever this takes, the model takes with the same result (a property test holds them together); it costs a
    third of the model. `keep` asks for the event's details, which only a log of raw events has a use for; `declared`
    are the dimensions of the catalogue.
    """
    if type(value) is not dict or not _QUICK_FIELDS.issuperset(value) or size > QUICK_BYTES_MAX:
        return None
    take = value.get
    org_id, feature, quantity = take("org_id", default_org_id), take("feature"), take("quantity", 1)
    # `type(...) is` keeps out True, which is an int to isinstance.
    if type(org_id) is not str or type(feature) is not str or type(quantity) is not int:
        return None
    if not 1 <= quantity <= QUANTITY_MAX or not is_org_id(org_id) or not is_feature(feature):
        return None
    event_id, source, timestamp, metadata = take("event_id"), take("source"), take("timestamp"), take("metadata")
    if not (_quick_text(event_id) and _quick_text(source) and _quick_text(take("actor"))):
        return None
    timestamp_ms = None if timestamp is None else _quick_moment(timestamp)
    if (timestamp_ms is None and timestamp is not None) or not (metadata is None or _flat(metadata)):
        return None
    event = UsageEvent(org_id, feature, quantity, event_id, source or "", timestamp_ms)
    if keep:
        event.details = details_of(take("actor"), metadata)
    if declared:
        event.dimensions = dimensions_of(take("actor"), metadata, declared)
    return event


def dimensions_of(
    actor: str | None, metadata: Mapping[str, Any] | None, declared: Collection[str]
) -> dict[str, str] | None:
    """The event's values of the declared dimensions, as text; None where it has none.

    A value longer than VALUE_CHARS_MAX is kept as `other`; lists, objects and null are no values.
    """
    given = {**(metadata or {}), "actor": actor}
    found = {name: _value(given[name]) for name in declared if isinstance(given.get(name), str | int | float)}
    return {name: value for name, value in found.items() if value} or None


def _value(given: str | float) -> str:
    text = given if isinstance(given, str) else orjson.dumps(given).decode()
    return text if len(text) <= VALUE_CHARS_MAX else "other"


def details_of(actor: str | None, metadata: Mapping[str, Any] | None) -> bytes | None:
    """What a log of raw events keeps of an event besides its figures, as `UsageEvent.details` has it."""
    if actor is None and metadata is None:
        return None
    return orjson.dumps({"actor": actor, "metadata": metadata})


def _quick_text(text: Any) -> bool:
    return text is None or (type(text) is str and is_text(text))


def _quick_moment(text: Any) -> int | None:
    try:
        return parse_ms(text) if type(text) is str else None
    except ValueError:
        return None


def _flat(metadata: Any) -> bool:
    """Whether this is an object of scalars with few enough keys."""
    if type(metadata) is not dict or len(metadata) > METADATA_KEYS_MAX:
        return False
    for entry in metadata.values():  # noqa: SIM110 - `all()` with a generator costs three times as much here
        if type(entry) not in _SCALARS:
            return False
    return True


def event_of(
    value: Any, caller: Caller, default_feature: str, *, keep: bool = False, declared: Collection[str] = ()
) -> UsageEvent:
    """The event that `value` says; `keep` and `declared` as for `quick_event`. Raises Invalid with every fault."""
    faults: Faults = []
    try:
        body = TrackRequest.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error, TrackRequest)
    faults += _needs(value, caller)
    if faults:
        raise invalid(faults)
    return UsageEvent(
        org_id=body.org_id or caller.org_id or "",
        feature=body.feature or default_feature,
        quantity=body.quantity,
        event_id=body.event_id,
        source=body.source or "",
        timestamp_ms=None if body.timestamp is None else parse_ms(body.timestamp),
        details=details_of(body.actor, _metadata(body)) if keep else None,
        mode=None if body.mode == "default" else OnLimit(body.mode),
        dry_run=body.dry_run,
        dimensions=dimensions_of(body.actor, _metadata(body), declared) if declared else None,
        hold_id=body.reservation_id,
    )


def _metadata(body: TrackRequest) -> Mapping[str, Any] | None:
    """The metadata; the short form's endpoint is part of it."""
    return body.metadata if not body.endpoint else {"endpoint": body.endpoint, **(body.metadata or {})}


def _needs(value: Any, caller: Caller) -> Faults:
    """The faults of what is not there, which the model alone cannot see."""
    if not isinstance(value, dict):
        return []
    faults = []
    if value.get("org_id") is None and caller.org_id is None:
        faults.append(fault("/org_id", "missing", "the token names no organisation, so the body must"))
    if "feature" not in value and "endpoint" not in value:
        faults.append(fault("/feature", "missing", "name a feature (or an endpoint)"))
    if value.get("reservation_id") is not None:
        if value.get("event_id") is not None:
            faults.append(fault("/event_id", "conflict", "the reservation's id is the event's; leave one of them out"))
        if value.get("dry_run") is True:
            faults.append(fault("/dry_run", "conflict", "a reservation cannot be committed for a trial"))
        if value.get("timestamp") is not None:
            faults.append(fault("/timestamp", "conflict", "a reservation counts when it is committed"))
    return faults
