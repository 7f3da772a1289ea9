"""Looking at raw events: what was counted, one by one, for as long as they are kept."""

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.raw_events import RawEventsQuery
from metering.api.route import Call, Reply, json_reply
from metering.errors import EventsNotKept, OrgNotFound
from metering.moments import parse_ms
from metering.store.raw_log import Wanted, shown


async def list_events(call: Call) -> Reply:
    """One page of an organisation's raw events, the newest first."""
    query = call.asked(RawEventsQuery)
    org_id = visible(call.caller, query.org_id)
    wanted = wanted_of(query)
    org = await call.services.orgs.get(org_id)
    if org is None:
        raise OrgNotFound
    if call.services.raw_log is None:
        raise EventsNotKept
    entries, following = await call.services.raw_log.page(org, wanted, query.cursor, query.limit)
    return json_reply({"data": [shown(entry, org_id) for entry in entries], "next_cursor": following})


def wanted_of(query: RawEventsQuery) -> Wanted:
    """What a query asks for. Raises Invalid where it ends before it begins."""
    from_ms = None if query.from_ is None else parse_ms(query.from_)
    to_ms = None if query.to is None else parse_ms(query.to)
    if from_ms is not None and to_ms is not None and to_ms <= from_ms:
        raise invalid([fault("/to", "out-of-range", "lies not after `from`")])
    return Wanted(query.feature, query.id, query.source, from_ms, to_ms)
