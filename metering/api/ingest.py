"""Many events in one request: each is counted or told why not, and none of them spoils the others."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from metering.api.bodies import FAULTS_MAX, Faults, fault, invalid
from metering.api.cloudevents import cloud_event
from metering.api.event_bodies import BINARY, CLOUD, CLOUD_BATCH, EVENT_BYTES_MAX, EventsBody, Item, items_of
from metering.api.events import event_of, quick_event
from metering.api.guard import tell_foreign
from metering.api.item_results import Results
from metering.api.keyed import KEY_HEADER, key_in
from metering.api.models.ingest import EventsQuery
from metering.api.queued import accepted, told
from metering.api.route import Call, Reply, json_reply
from metering.errors import (
    BatchRefused,
    Invalid,
    MalformedJson,
    OrgNotFound,
    Overloaded,
    Problem,
    TimestampOutOfRange,
    TooLarge,
)
from metering.names import TEXT_CHARS_MAX
from metering.usage import ADMITTED, Outcome, Result, UsageEvent

_CLOUD_KINDS: Final = frozenset({CLOUD, CLOUD_BATCH, BINARY})

_TURN_EVENTS: Final = 100
"""Events read before others get a turn of the loop: about a millisecond of ordinary ones."""

TOGETHER_MAX: Final = 250
"""Features counted in one step: the most that others should wait behind, as in one call of the store."""

_SERVER_FAULT: Final = 500

Settled = Outcome | Problem


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a request in their order: as they were sent, and as understood, or why they were not."""

    items: Sequence[Item]
    read: Sequence[UsageEvent | Problem]

    def events(self) -> list[UsageEvent]:
        """Those that can be counted."""
        return [entry for entry in self.read if isinstance(entry, UsageEvent)]


async def post_events(call: Call) -> Reply:
    """POST /v1/events and POST /usage/track/batch."""
    asked = call.asked(EventsQuery)
    if asked.ack == "async":
        if asked.atomic:
            raise invalid([fault("/atomic", "conflict", "with ack=async each event is decided by itself, later")])
        return await _queued(call, await read_batch(call))
    if not call.services.counts.room():
        raise Overloaded  # before any work for it: what is overloaded must refuse cheaply
    batch = await read_batch(call)
    if asked.atomic:
        return await _together(call, batch)
    settled = await call.services.counts.track_all(batch.events())
    return _answer(call, batch, settled)


async def _together(call: Call, batch: Batch) -> Reply:
    """Count all events or none. Raises BatchRefused, or what keeps all of them from being counted."""
    events = batch.events()
    _check_together(events)
    settled: Sequence[Settled | None] = [None] * len(events)
    if len(events) == len(batch.read):
        counted = await call.services.counts.track_all(events, atomic=True) if events else ()
        if all(isinstance(entry, Outcome) and entry.result in ADMITTED for entry in counted):
            return _answer(call, batch, counted)
        settled = _told_apart(events, counted)
    raise _refused(call, batch, settled)


def _told_apart(events: Sequence[UsageEvent], settled: Sequence[Settled]) -> Sequence[Settled | None]:
    """What became of each event, None where others are the reason. Raises a problem that is none of the events'."""
    first = settled[0]
    if isinstance(first, TimestampOutOfRange) and "oldest_ms" in first.extra:
        oldest_ms, newest_ms = int(str(first.extra["oldest_ms"])), int(str(first.extra["newest_ms"]))
        late = [e.timestamp_ms is not None and not oldest_ms <= e.timestamp_ms <= newest_ms for e in events]
        return [first if outside else None for outside in late]
    if isinstance(first, Problem):
        raise first
    return [None if isinstance(e, Outcome) and e.result is Result.NOT_TOGETHER else e for e in settled]


def _check_together(events: Sequence[UsageEvent]) -> None:
    """Raises Invalid where the events could not be counted in one step."""
    orgs = list(dict.fromkeys(event.org_id for event in events))
    counted = sum(1 + len(event.also) for event in events)
    faults: Faults = []
    if len(orgs) > 1:
        faults.append(fault("", "atomic-orgs", f"{len(orgs)} organisations, '{orgs[0]}' and '{orgs[1]}' among them"))
    if counted > TOGETHER_MAX:
        faults.append(fault("", "atomic-events", f"{counted} counted features, at most {TOGETHER_MAX} together"))
    if faults:
        raise invalid(faults)


def _refused(call: Call, batch: Batch, settled: Sequence[Settled | None]) -> BatchRefused:
    """The refusal of events that were to be counted together: why, for those that are the reason."""
    results = _results(call)
    answered = iter(settled)
    listed = []
    for index, (item, entry) in enumerate(zip(batch.items, batch.read, strict=True)):
        if isinstance(entry, Problem):
            listed.append(results.of(index, _id_of(item), None, entry))
        elif (became := next(answered)) is None:
            listed.append(results.skipped(index, entry))
        else:
            listed.append(results.of(index, entry.event_id or entry.hold_id, entry, became))
    if call.asked(EventsQuery).detail == "none":
        listed = [result for result in listed if "problem" in result]
    detail = f"{results.failed} of {len(batch.items)} events cannot be counted, so none was"
    return BatchRefused(detail, results=listed)


async def read_batch(call: Call) -> Batch:
    """The events of a request, each understood or refused by itself.

    Raises what refuses the body as a whole: MalformedJson, TooLarge, and Invalid where not one event can be read.
    """
    body = call.sent(EventsBody)
    items = await items_of(body, call.services.events_max)
    key = key_in(body.headers) if KEY_HEADER in call.headers else None
    read: list[UsageEvent | Problem] = []
    for index, item in enumerate(items):
        entry = _read(item, body.kind, call)
        if key is not None and isinstance(entry, UsageEvent) and entry.hold_id is None:
            entry.event_id = entry.event_id or f"{key}/{index}"
        read.append(entry)
        if index % _TURN_EVENTS == 0:
            await asyncio.sleep(0)
    _tell_foreign(call, read, items)
    if items and all(isinstance(entry, Invalid | MalformedJson | TooLarge) for entry in read):
        raise _unreadable(items, [entry for entry in read if isinstance(entry, Problem)])
    return Batch(items, read)


def _read(item: Item, kind: str, call: Call) -> UsageEvent | Problem:
    """One event, of an organisation the caller sees, or its problem."""
    try:
        event = _understood(item, kind, call)
    except Problem as problem:
        return problem
    return event if call.caller.sees(event.org_id) else OrgNotFound()


def _understood(item: Item, kind: str, call: Call) -> UsageEvent:
    """The event of an item. Raises Problem."""
    services, caller, value = call.services, call.caller, item.value
    if isinstance(value, Problem):
        raise value
    if item.size > EVENT_BYTES_MAX:
        raise TooLarge(f"the event has {item.size} bytes, more than {EVENT_BYTES_MAX}")
    if kind in _CLOUD_KINDS:
        return cloud_event(value, item.size, caller, services.catalogue, keep=services.keep_details)
    keep, catalogue = services.keep_details, services.catalogue
    event = quick_event(value, item.size, caller.org_id, keep=keep, declared=catalogue.dimensions)
    return event or event_of(value, caller, catalogue.default_feature, keep=keep, declared=catalogue.dimensions)


def _tell_foreign(call: Call, read: Iterable[UsageEvent | Problem], items: Iterable[Item]) -> None:
    """Log once for the request that it asked for organisations the caller may not know of."""
    foreign = [item for entry, item in zip(read, items, strict=True) if isinstance(entry, OrgNotFound)]
    if foreign:
        value = foreign[0].value
        asked = value.get("org_id") or value.get("subject")
        tell_foreign(call.caller, str(asked), events=str(len(foreign)))


def _unreadable(items: Sequence[Item], problems: Sequence[Problem]) -> Problem:
    """The refusal of a request of which not one event can be read."""
    if len(items) == 1 and not items[0].place:
        return problems[0]
    faults: Faults = []
    for item, problem in zip(items, problems, strict=True):
        faults += _faults(item.place, problem)
        if len(faults) >= FAULTS_MAX:
            break
    if all(isinstance(problem, TooLarge) for problem in problems):
        return TooLarge(problems[0].detail, errors=faults[:FAULTS_MAX])
    return invalid(faults[:FAULTS_MAX])


def _faults(place: str, problem: Problem) -> Faults:
    """What is wrong with one event, with its places in the body."""
    if not isinstance(problem, Invalid):
        return [fault(place, problem.code, problem.detail)]
    faults: Any = problem.extra["errors"]
    return [fault(place + entry["pointer"], entry["code"], entry["detail"]) for entry in faults]


async def _queued(call: Call, batch: Batch) -> Reply:
    """Answer for events that are counted later. Raises the problem that kept all of them from the store."""
    results = _results(call)
    fates = await accepted(call, batch.events(), results)
    _raise_common(fates)
    answered = iter(fates)
    listed = []
    for index, (item, entry) in enumerate(zip(batch.items, batch.read, strict=True)):
        if isinstance(entry, Problem):
            listed.append(results.of(index, _id_of(item), None, entry))
        elif (fate := next(answered)) is not None:
            listed.append(results.of(index, entry.event_id or entry.hold_id, entry, fate))
    return told(fates.count(None), listed)


def _results(call: Call) -> Results:
    """Where results are made; a CloudEvent has its timestamp in an attribute of its own."""
    own_time = call.sent(EventsBody).kind in _CLOUD_KINDS
    return Results(call.services.catalogue, "/time" if own_time else "/timestamp")


def _raise_common(settled: Sequence[Settled | None]) -> None:
    """Raises the problem that kept every event from the store."""
    faults = [entry for entry in settled if isinstance(entry, Problem) and entry.status >= _SERVER_FAULT]
    if faults and len(faults) == len(settled):
        raise faults[0]


def _answer(call: Call, batch: Batch, settled: Sequence[Settled]) -> Reply:
    """What became of every event. Raises the problem that kept all of them from the store."""
    _raise_common(settled)
    results = _results(call)
    answered = iter(settled)
    listed = [
        results.of(index, _id_of(item), None, entry)
        if isinstance(entry, Problem)
        else results.of(index, entry.event_id or entry.hold_id, entry, next(answered))
        for index, (item, entry) in enumerate(zip(batch.items, batch.read, strict=True))
    ]
    if call.asked(EventsQuery).detail == "none":
        if not results.failed:
            return Reply(b"", 204)
        listed = [result for result in listed if "problem" in result]
    return json_reply(results.tally | {"results": listed}, 207 if results.failed else 200)


def _id_of(item: Item) -> str | None:
    """The id of an event that was not understood, as far as it has one."""
    if not isinstance(item.value, dict):
        return None
    found = item.value.get("event_id", item.value.get("id"))
    return found if isinstance(found, str) and len(found) <= TEXT_CHARS_MAX else None
