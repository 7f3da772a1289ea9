"""Watching raw events as they are counted: GET /v1/admin/events."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import orjson

from metering.api.models.live_events import LiveEventsQuery
from metering.api.route import Call, Reply
from metering.clock import MS_PER_S
from metering.errors import EventsNotKept, OrgNotFound
from metering.store.raw_log import shown
from metering.store.tail import POLL_S, Seen, Watched

LINES: Final = "application/x-ndjson"
SERVER_SENT: Final = "text/event-stream"
"""https://html.spec.whatwg.org/multipage/server-sent-events.html"""

QUIET_S: Final = 5.0
"""After so long without an event something is said all the same: proxies close what is silent for a minute, and that a
reader has left shows when something is sent alone."""


async def watch_events(call: Call) -> Reply:
    """A stream that ends with its time, its reader or this worker. Raises OrgNotFound, EventsNotKept, Overloaded."""
    query, services = call.asked(LiveEventsQuery), call.services
    org = None if query.org_id is None else await services.orgs.get(query.org_id)
    if org is None and query.org_id is not None:
        raise OrgNotFound
    if services.raw_log is None:
        raise EventsNotKept
    server_sent = SERVER_SENT in call.headers.get(b"accept", b"").decode("latin-1").lower()
    watched = Watched(org, query.feature, query.since_s * MS_PER_S, query.for_s)
    services.tail.enter()
    parts = _parts(services.tail.follow(watched), server_sent=server_sent)
    kind = SERVER_SENT if server_sent else LINES
    headers = {"X-Accel-Buffering": "no"}  # nginx would keep the stream to itself
    return Reply(b"", kind=kind.encode(), headers=headers, parts=parts, done=services.tail.leave)


async def _parts(found: AsyncIterator[Sequence[Seen]], *, server_sent: bool) -> AsyncIterator[bytes]:
    """What goes out; nothing, often, so that whoever sends it can look whether anybody still reads."""
    yield b":\n\n" if server_sent else b"\n"  # the answer begins at once
    quiet = 0
    async for some in found:
        quiet = 0 if some else quiet + 1
        if quiet * POLL_S >= QUIET_S:
            quiet = 0
            yield b":\n\n" if server_sent else b"\n"
        else:
            yield b"".join(_part(shown(entry, org_id), server_sent=server_sent) for entry, org_id in some)


def _part(view: dict[str, Any], *, server_sent: bool) -> bytes:
    """One event: a line, or one that a browser's EventSource takes."""
    line = orjson.dumps(view)
    return b"id: %b\ndata: %b\n\n" % (view["id"].encode(), line) if server_sent else line + b"\n"
