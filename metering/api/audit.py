"""The audit: what happened to organisations, who did it and why."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.audit import AuditQuery
from metering.api.route import Call, Reply, json_reply
from metering.auth import ADMIN
from metering.errors import OrgNotFound
from metering.moments import parse_ms, rfc3339
from metering.store.trail import AMOUNTS, FIRST, Entry, Place, Wanted


async def get_audit(call: Call) -> Reply:
    """One page: of one organisation, or, for an administrator who names none, of all."""
    query = call.asked(AuditQuery)
    wanted, after = _wanted(query), _place(query.cursor)
    trail = call.services.trail
    if query.org_id is None and call.caller.may(ADMIN):
        entries, following = await trail.walk(wanted, query.limit, after)
        return json_reply(_page(entries, following))
    org_id = visible(call.caller, query.org_id)
    if after is not None and after.org_id != org_id:
        raise invalid([fault("/cursor", "other-organisation", "the cursor belongs to another organisation's pages")])
    if await call.services.orgs.get(org_id) is None:
        raise OrgNotFound
    entries, following = await trail.page(org_id, wanted, query.limit, FIRST if after is None else after.entry_id)
    return json_reply(_page(entries, following))


def _wanted(query: AuditQuery) -> Wanted:
    """What a query asks for. Raises Invalid where it ends before it begins."""
    from_ms = None if query.from_ is None else parse_ms(query.from_)
    to_ms = None if query.to is None else parse_ms(query.to)
    if from_ms is not None and to_ms is not None and to_ms <= from_ms:
        raise invalid([fault("/to", "out-of-range", "lies not after `from`")])
    return Wanted(query.actor, query.type, from_ms, to_ms)


def _place(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    org_id, _, entry_id = cursor.rpartition("@")
    return Place(org_id, entry_id)


def _page(entries: list[Entry], following: Place | None) -> dict[str, Any]:
    cursor = None if following is None else f"{following.org_id}@{following.entry_id}"
    return {"data": [entry_view(entry) for entry in entries], "next_cursor": cursor}


def entry_view(entry: Entry) -> dict[str, Any]:
    """An entry as the wire shows it."""
    return {
        "id": entry.entry_id,
        "at": rfc3339(entry.at_ms),
        "type": entry.kind,
        "org_id": entry.org_id,
        "actor": entry.actor,
        "details": {name: _read(name, text) for name, text in entry.fields.items()},
    }


def _limit(text: str) -> int | None:
    limit = int(text)
    return None if limit < 0 else limit


def _moment(text: str) -> str:
    return rfc3339(int(text))


_UNITS: Final = (
    "delta",
    "units",
    "used",
    "used_before",
    "used_after",
    "overage_before",
    "overage_after",
    "credits",
    "balance",
    *AMOUNTS,
)
_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    **dict.fromkeys(_UNITS, int),
    "limit": _limit,
    "period": _moment,
    "until": _moment,
    "overrides": orjson.loads,
}
"""What the store's text says, by the name of the field; all else is text."""


def _read(name: str, text: str) -> Any:
    with suppress(ValueError, OverflowError):  # not as a script writes it: shown as it is
        return _READERS.get(name, str)(text)
    return text
