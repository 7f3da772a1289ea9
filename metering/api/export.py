"""GET /v1/orgs/{org_id}/export: what is known of an organisation, a line a record."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import orjson

from metering.api.audit import entry_view
from metering.api.credits import grant_view, line_view
from metering.api.history import row_view
from metering.api.keys import key_view
from metering.api.live_events import LINES
from metering.api.past import step_view
from metering.api.route import Call, Reply
from metering.api.subscription import subscription_view
from metering.api.usage import found, shown
from metering.store.lookback import Page, Place, Question
from metering.store.org import Org
from metering.store.past import Step
from metering.store.raw_log import Wanted
from metering.store.raw_log import shown as event_view
from plans.periods import Period
from plans.windows import Window, Windows

_PAGE: Final = 500

Views = Iterable[dict[str, Any]]

_Read = Callable[[Any], Awaitable[tuple[Sequence[Any], Any]]]
"""Reads one page from a cursor on (None: the first), and says where the next one begins (None: nowhere)."""


async def export_org(call: Call) -> Reply:
    """A stream that ends with how many lines it had. Raises OrgNotFound."""
    org = await found(call, call.params["org_id"])
    headers = {"Content-Disposition": f'attachment; filename="{org.org_id}.ndjson"'}
    return Reply(b"", kind=LINES.encode(), headers=headers, parts=_parts(call, org))


async def _parts(call: Call, org: Org) -> AsyncIterator[bytes]:
    lines = 0
    async for record, views in _records(call, org):
        part = [orjson.dumps({"record": record, "data": view}) for view in views]
        lines += len(part)
        yield b"".join(line + b"\n" for line in part)
    yield orjson.dumps({"record": "end", "data": {"lines": lines}}) + b"\n"


async def _records(call: Call, org: Org) -> AsyncIterator[tuple[str, Views]]:
    """What each line is, and the lines, some at a time."""
    name, services = org.org_id, call.services
    yield "organisation", [await shown(call, org)]
    yield "subscription", [subscription_view(org)]
    async for keys in _pages(lambda at: services.api_keys.page(name, at, _PAGE)):
        yield "api_key", map(key_view, keys)
    async for rows in _history(call, org):
        yield "usage", rows
    yield "grant", [grant_view(name, one) for one in await services.credits.grants(name)]
    async for lines in _pages(lambda at: services.credits.transactions(name, _PAGE, at)):
        yield "credit", [line_view(line, None) for line in lines]
    async for steps in _pages(lambda at: services.past.page(name, _PAGE, at)):
        yield "billing", map(_step_view, steps)
    raw_log = services.raw_log
    if raw_log is not None:
        async for events in _pages(lambda at: raw_log.page(org, Wanted(), at, _PAGE)):
            yield "event", [event_view(event, name) for event in events]


async def _pages(read: _Read) -> AsyncIterator[Sequence[Any]]:
    """Every page of a list."""
    rows, cursor = await read(None)
    yield rows
    while cursor is not None:
        rows, cursor = await read(cursor)
        yield rows


async def _history(call: Call, org: Org) -> AsyncIterator[Views]:
    """Units by the hour, of all, and by each declared dimension."""
    lookback, catalogue = call.services.lookback, call.services.catalogue
    features = tuple(sorted({*catalogue.features, *org.features}))
    span = Period(lookback.oldest_ms(Window.HOUR) or 0, lookback.now_ms())
    for dim in (None, *catalogue.dimensions):
        question = Question((org.org_id,), features, span, Windows(Window.HOUR, "UTC"), dim)
        place: Place | None = Place(features[0], span.start_ms)
        while place is not None:
            page = Page()
            await lookback.extend(page, question, place, _PAGE)
            rows = [row for row in page.rows if row.units or row.overage]
            yield [row_view(row, {} if dim is None else {dim: row.value}) for row in rows]
            place = page.following


def _step_view(step: Step) -> dict[str, Any]:
    """An entry of the billing history with what the audit says of it."""
    told, entry = step_view(step), entry_view(step.entry)
    return told | {"actor": entry["actor"], "details": entry["details"] | told["details"]}
