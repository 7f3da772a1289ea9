"""Looking back: usage by window, as JSON or CSV, a page at a time."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.history_query import ORG, Asked, Cursor, of_body, of_query, span_of, windows_of
from metering.api.models.history import METADATA_PREFIX, HistoryQuery, UsageQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.sheets import sheet
from metering.auth import ADMIN
from metering.errors import OrgNotFound
from metering.moments import rfc3339
from metering.store.lookback import Page, Place, Question, Row
from metering.store.org import Org
from plans.periods import Period

ORGS_STEP: Final = 8
"""Names read at once on a walk over all organisations: a page seldom gets further."""


@dataclass(slots=True)
class Found:
    """A page as it goes out: rows with their organisation, and where the next page begins."""

    asked: Asked
    span: Period
    timezone: str
    rows: list[tuple[str, Row]]
    page: Page
    following: Cursor | None = None


async def get_history(call: Call) -> Reply:
    """History of the organisation in the path, or of the token's own."""
    org_id = visible(call.caller, call.params.get("org_id"))
    query = call.asked(HistoryQuery)
    found = await _found(call, of_query(query), [await _present(call, org_id)])
    path = f"/usage/{org_id}/history" if "org_id" in call.params else "/usage/history"
    return _reply(found, org_id, None if found.following is None else _link(path, query, found.following))


async def query_usage(call: Call) -> Reply:
    """The same as a body: one organisation, several, or all."""
    body = call.sent(UsageQuery)
    asked = of_body(body)
    named = _named(call, body, asked)
    orgs = [await _present(call, name) for name in named]
    found = await _found(call, asked, orgs)
    return _reply(found, named[0] if len(named) == 1 else None, None)


def _named(call: Call, body: UsageQuery, asked: Asked) -> list[str]:
    """The organisations that a body names, by name; none where an administrator asks for all, one by one."""
    if body.org_id is not None and body.org_ids:
        raise invalid([fault("/org_ids", "one-of", "give org_id or org_ids, not both")])
    if body.org_ids:
        return sorted({visible(call.caller, name) for name in body.org_ids})
    if body.org_id is None and asked.by_org and call.caller.may(ADMIN):
        return []
    return [visible(call.caller, body.org_id)]


async def _present(call: Call, org_id: str) -> Org:
    org = await call.services.orgs.get(org_id)
    if org is None:
        raise OrgNotFound
    return org


async def _found(call: Call, asked: Asked, orgs: list[Org]) -> Found:
    """One page. Raises Invalid with what is wrong with the question."""
    lookback, catalogue = call.services.lookback, call.services.catalogue
    known = {*catalogue.features, *(feature for org in orgs for feature in org.features)}
    if faults := asked.faults(catalogue, known):
        raise invalid(faults)
    windows, span = windows_of(asked, orgs), span_of(asked, orgs, lookback)
    question = Question(
        orgs=(),
        features=tuple(sorted(set(asked.features) or known)),
        span=span,
        windows=windows,
        dim=asked.dim,
        value=asked.value,
        borders_ms=frozenset(at_ms for org in orgs for at_ms in _borders(org)),
        fill=asked.fill,
    )
    found = Found(asked, span, windows.timezone, [], Page())
    if asked.by_org:
        await _one_by_one(call, question, found, [org.org_id for org in orgs])
    else:
        place = None if asked.cursor is None else asked.cursor.place
        await _extend(call, replace(question, orgs=tuple(org.org_id for org in orgs)), found, place, None)
    return found


def _borders(org: Org) -> Iterator[int]:
    """Where the running period and the one before it begin and end."""
    for period in (org.period, org.before or org.period):
        yield period.start_ms
        yield period.end_ms


async def _one_by_one(call: Call, question: Question, found: Found, named: list[str]) -> None:
    """Each organisation in turn, from where the cursor stands on; all there are where none is named."""
    cursor = found.asked.cursor
    at = None if cursor is None else cursor.org
    names = _from(named, at) if named else _all(call, at)
    async for name in names:
        place = cursor.place if cursor is not None and cursor.org == name else None
        if found.page.full(found.asked.limit):
            found.following = Cursor(place or Place(question.features[0], question.span.start_ms), found.span, name)
        else:
            await _extend(call, replace(question, orgs=(name,)), found, place, name)
        if found.following is not None:
            return


async def _extend(call: Call, question: Question, found: Found, place: Place | None, org: str | None) -> None:
    """Add to the page what these organisations have."""
    page = found.page
    before = len(page.rows)
    await call.services.lookback.extend(page, question, place, found.asked.limit)
    found.rows += [(org or "", row) for row in page.rows[before:]]
    if page.following is not None:
        found.following = Cursor(page.following, found.span, org)


async def _from(names: Sequence[str], at: str | None) -> AsyncIterator[str]:
    for name in names:
        if at is None or name >= at:
            yield name


async def _all(call: Call, at: str | None) -> AsyncIterator[str]:
    """Every organisation, in the order of the index, brought to the present first."""
    names = await call.services.lookback.orgs(at, ORGS_STEP)
    while names:
        for name in names:
            if await call.services.orgs.living(name) is not None:
                yield name
        last = names[-1]
        names = [name for name in await call.services.lookback.orgs(last, ORGS_STEP + 1) if name != last]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def _reply(found: Found, org_id: str | None, link: str | None) -> Reply:
    following = None if found.following is None else found.following.text()
    if found.asked.format == "csv":
        return _csv(found, org_id, following, link)
    return json_reply(
        {
            "org_id": org_id,
            "window": found.asked.window.value,
            "tz": found.timezone,
            "from": rfc3339(found.span.start_ms),
            "to": rfc3339(found.span.end_ms),
            "aligned": found.page.aligned,
            "data": [row_view(row, _group(found.asked, org, row)) for org, row in found.rows],
            "next_cursor": following,
        }
    )


def _ends(row: Row) -> tuple[str, str]:
    return rfc3339(row.span.start_ms), rfc3339(row.span.end_ms)


def row_view(row: Row, group: dict[str, str | None]) -> dict[str, Any]:
    """A row as the wire shows it, with what tells it from others of its feature and window."""
    start, end = _ends(row)
    return {
        "start": start,
        "end": end,
        "feature": row.feature,
        "group": group,
        "value": row.units,
        "overage": row.overage,
    }


def _group(asked: Asked, org: str, row: Row) -> dict[str, str | None]:
    """What tells a row from the others of its feature and window."""
    group: dict[str, str | None] = {ORG: org} if asked.by_org else {}
    return group if asked.token is None else group | {asked.token: row.value}


def _csv(found: Found, org_id: str | None, following: str | None, link: str | None) -> Reply:
    """The page as a file. Where the next begins stands in its headers."""
    groups = [name for name in (ORG if found.asked.by_org else None, found.asked.token) if name is not None]
    rows = ((row, _group(found.asked, org, row)) for org, row in found.rows)
    cells = (
        (*_ends(row), row.feature, *(group[name] for name in groups), row.units, row.overage) for row, group in rows
    )
    name = "usage.csv" if org_id is None else f"usage-{org_id}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Aligned": str(found.page.aligned).lower()}
    if following is not None:
        headers["X-Next-Cursor"] = following
    if link is not None:
        headers["Link"] = f'<{link}>; rel="next"'
    head = ("start", "end", "feature", *groups, "value", "overage")
    return Reply(sheet(head, cells), kind=b"text/csv; charset=utf-8", headers=headers)


def _link(path: str, query: HistoryQuery, following: Cursor) -> str:
    """The address of the next page: the same query with its cursor."""
    sent = query.model_dump(by_alias=True, exclude_unset=True, exclude={"metadata", "cursor"})
    pairs = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in sent.items()}
    pairs |= {METADATA_PREFIX + key: value for key, value in query.metadata.items()}
    return f"{path}?{urlencode(pairs | {'cursor': following.text()})}"
