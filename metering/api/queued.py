"""`ack=async`: events answered for once they are on disk, and counted afterwards."""

from collections.abc import Sequence

from metering.api.bodies import fault, invalid
from metering.api.item_results import Results
from metering.api.route import Call, Reply, json_reply
from metering.errors import Problem
from metering.usage import UsageEvent

Fate = Problem | None
"""None: the event will be counted. Else why not."""


async def accepted(call: Call, events: Sequence[UsageEvent], results: Results) -> list[Fate]:
    """Accept events as far as they can be counted, and say of each in its order.

    What the catalogue alone can tell is told at once; limits are looked at when the event is counted.
    """
    fates = [_refusal(call, event, results) for event in events]
    sound = [at for at, fate in enumerate(fates) if fate is None]
    queued = await call.services.queue.accept([events[at] for at in sound], actor=call.caller.subject)
    for at, fate in zip(sound, queued, strict=True):
        fates[at] = fate
    return fates


def told(taken: int, listed: Sequence[object]) -> Reply:
    """How many were accepted, and those that were not: 202, or 207 where there are some."""
    body = {"accepted": taken, "rejected": len(listed), "results": list(listed)}
    return json_reply(body, 207 if listed else 202)


def _refusal(call: Call, event: UsageEvent, results: Results) -> Fate:
    """Why an event could never be counted later."""
    if event.dry_run:
        return invalid([fault("/dry_run", "ack-async", "a dry run is answered at once: leave out ack=async")])
    if event.hold_id is not None:
        return invalid([fault("/reservation_id", "ack-async", "a reservation is settled at once: leave out ack=async")])
    features = call.services.catalogue.features
    unknown = next((name for name, _ in ((event.feature, 0), *event.also) if name not in features), None)
    return None if unknown is None else results.unknown(unknown)
