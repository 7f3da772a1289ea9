"""The conservation law fires: one figure is spoilt at a time, and the walk names the law and the place."""

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from metering.store import conservation, window_laws
from metering.store.conservation import check_org, walk
from metering.store.orgs import OrgChange
from tests.lua.ledger import Ledger
from tests.lua.outboxes import delivered, outbox_of, sealed, window_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer

UNSEALED: Final = "dirty and unbilled = overage not sealed"
WINDOWS: Final = "windows follow each other, from what is pruned up to what is sealed"
SUMS: Final = "delivered and written off = pruned and windows that are"
MINUTES: Final = "minutes hold no more than their hour"
RECORD: Final = "{p00}:o:acme"


@dataclass(slots=True)
class DataSet:
    """A lawful data set: acme with a closed January and overage in both months, beta on another plan with a hold,
    gamma with windows, delta with one of two that is left.
    """

    ledger: Ledger
    january_ms: int
    february_ms: int
    delivered: str
    kept: str

    @property
    def archive(self) -> str:
        """The key of acme's January."""
        return f"{{p00}}:u:acme:{self.january_ms}"

    @property
    def window(self) -> str:
        """The key of the window of gamma that was delivered."""
        return f"{{p00}}:b:{self.delivered}"

    @property
    def pruned(self) -> str:
        """The key of delta's January, whose first window of two is gone."""
        return f"{{p00}}:u:delta:{self.january_ms}"

    @property
    def day(self) -> str:
        """The key of acme's scans of the first of February."""
        return self.ledger.keys.history("acme", "scans", f"{self.year}0201")

    @property
    def year(self) -> str:
        """The year of it all."""
        return str(1970 + self.february_ms // (365 * 86_400_000 + 21_600_000))


@asynccontextmanager
async def data_set(url: str) -> AsyncIterator[DataSet]:
    """Make it, and see that it is lawful."""
    async with calm(url, partitions=1) as ledger:
        caller = ledger.callers[0]
        for quantity, feature in ((13, "scans"), (2, "checks")):
            await caller.counters.track(event("acme", quantity, f"e{quantity}", feature))
        org = await caller.orgs.get("acme")
        assert org is not None
        pruned, kept = [await overage(ledger, "delta", units) for units in (12, 3)]
        await move_to(ledger, await next_year(ledger, "02-01T10:00:00"))
        await caller.counters.track(event("acme", 12, "e12"))
        await caller.counters.track(event("beta", 1))
        await caller.orgs.update("beta", OrgChange(plan="pro"), actor="test", create=False)
        await caller.holds.place("beta", "r1", "checks", 2, 60_000)
        await caller.counters.track(event("gamma", 14, "e14"))
        window = await sealed(ledger, "gamma|scans")
        await delivered(ledger, window)
        await caller.counters.track(event("gamma", 3, "e15"))
        await sealed(ledger, "gamma|scans")
        await prune(ledger, pruned, org.period.start_ms)
        await lawful(ledger)
        yield DataSet(ledger, org.period.start_ms, org.period.end_ms, window, kept)


async def overage(ledger: Ledger, org_id: str, units: int) -> str:
    """A window of what these units are too many, delivered."""
    await ledger.callers[0].counters.track(event(org_id, units, f"d{units}"))
    name = await sealed(ledger, f"{org_id}|scans")
    await delivered(ledger, name)
    return name


async def prune(ledger: Ledger, name: str, start_ms: int) -> None:
    """Let a window of delta's January go, which is invoiced and final."""
    outbox, window = outbox_of(ledger), await window_of(ledger, name, "delta")
    await ledger.callers[0].orgs.get("delta")
    await ledger.client.hset(ledger.keys.archive("delta", start_ms), "iv", 7)
    assert await outbox.finalize("delta", start_ms, 9)
    assert await outbox.prune([window], 0) == 1


SPOILT: Final = (
    ("SET stray 1", "every key has a declared shape", "stray"),
    ("SET {p00}:h:acme:scans:20300101 1", "is a hash", "{p00}:h:acme:scans:20300101"),
    ("EXPIRE {p00}:o:acme 1000", "expires by org", RECORD),
    ("EXPIRE <archive> 1000", "expires by org", "<archive>"),
    ("PERSIST <day>", "expires by ttl", "<day>"),
    ("EXPIRE {p00}:totals 1000", "expires by never", "{p00}:totals"),
    ("SET {p00}:events 1", "is a stream", "{p00}:events"),
    ("SET {p00}:queue 1", "is a stream", "{p00}:queue"),
    ("SET {p00}:dead 1", "is a stream", "{p00}:dead"),
    ("DEL {p00}:o:acme", "an organisation has a record", RECORD),
    ("RENAME <archive> {p00}:u:acme:7", "an archive is named by its start", "{p00}:u:acme:7"),
    ("HSET <archive> pe <february>1", "periods do not overlap", RECORD),
    ("HINCRBY <archive> u:checks 1", "used = sum of history", "<archive>#checks"),
    ("HINCRBY {p00}:o:acme b:scans 1", "closed units = sum of archives", RECORD),
    ("HDEL {p00}:o:acme b:scans", "closed units = sum of archives", RECORD),
    ("DEL <archive>", "closed units = sum of archives", RECORD),
    ("HINCRBY {p00}:o:acme u:scans 1", "used = sum of history", f"{RECORD}#scans"),
    ("HINCRBY {p00}:o:acme u:scans -1", "used = sum of history", f"{RECORD}#scans"),
    ("HINCRBY <day> 10 1", "used = sum of history", f"{RECORD}#scans"),
    ("DEL <day>", "used = sum of history", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme u:calls 3", "used = sum of history", f"{RECORD}#calls"),
    ("HINCRBY {p00}:o:acme x:scans 1", "overage = sum of its history", f"{RECORD}#scans"),
    ("HINCRBY <day> x10 -1", "overage = sum of its history", f"{RECORD}#scans"),
    ("HINCRBY {p00}:o:acme y:scans 1", "overage = sum of its history", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme x:scans 13", "credit + overage <= used", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme a:scans 13", "credit + overage <= used", f"{RECORD}#scans"),
    ('HSET {p00}:s:acme cg_1 p.{"amount":5}', "amount = burned + taken + expired + left", "{p00}:s:acme"),
    ("HSET {p00}:j:acme 20240229|scans|cg_1 5", "credits are of a grant", "{p00}:s:acme"),
    ("HSET {p00}:y:acme cg_1 0:50:0:0:1::0:0:p", "an open grant has credits", "{p00}:s:acme"),
    ("HSET {p00}:y:acme debt 5", "an organisation with credits says so", RECORD),
    ("HSET {p00}:y:acme cg_1 5:50:0", "every figure can be read", RECORD),
    ("ZADD {p00}:lapsing 7 acme", "lapsing = the next expiry of credits", "{p00}:y:acme"),
    ("HSET {p00}:o:acme s:scans 3", "0 <= sealed <= overage accrued", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme s:scans -1", "0 <= sealed <= overage accrued", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme y:scans 3", "0 <= given back <= overage accrued", f"{RECORD}#scans"),
    ("HSET {p00}:o:acme y:scans -1", "0 <= given back <= overage accrued", f"{RECORD}#scans"),
    ("HSET <archive> y:scans 4", "0 <= given back <= overage accrued", "<archive>#scans"),
    ("HSET <day> x10 13", "an hour's overage <= its units", "<day>"),
    ("RENAME <day> {p00}:h:acme:scans:20200101", "history lies in a known period", "{p00}:h:acme:scans:20200101"),
    ("HINCRBY {p00}:o:acme h:checks 1", "units held = open holds", RECORD),
    ("ZADD {p00}:e:acme 1 r1|checks|5|r", "units held = open holds", RECORD),
    ("ZADD {p00}:e:beta 1 r1|checks|5|r", "an open hold stands there once", "{p00}:e:beta"),
    ("HSET {p00}:r:beta:r1 status committed", "an open hold is held", "{p00}:r:beta:r1"),
    ("HSET {p00}:r:beta:r1 quantity 3", "an open hold is held", "{p00}:r:beta:r1"),
    ("ZADD {p00}:e:acme 2 r1|checks|5|r", "open holds have their turn", "{p00}:expiring"),
    ("ZREM {p00}:dirty acme|scans", UNSEALED, RECORD),
    ("ZADD {p00}:dirty 1 acme|checks", UNSEALED, RECORD),
    ("ZADD {p00}:unbilled 0 acme|scans", UNSEALED, RECORD),
    ("HSET <archive> s:scans 3", UNSEALED, RECORD),
    ("HSET {p00}:o:acme z:scans 1", "0 <= netted <= sealed and given back", f"{RECORD}#scans"),
    ("HSET {p00}:o:gamma s:scans 6", WINDOWS, "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma d:scans 3", "delivered >= windows that are", "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma d:scans 5", SUMS, "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma q:scans 3", SUMS, "{p00}:o:gamma#scans"),
    ("HSET <window> state written_off", "written off >= windows that are", "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma g:scans 4", "windows of final periods alone are pruned", "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma g:scans 3", WINDOWS, "{p00}:o:gamma#scans"),
    ("HSET {p00}:o:gamma g:scans 2", SUMS, "{p00}:o:gamma#scans"),
    ("HINCRBY <pruned> g:scans 1", WINDOWS, "<pruned>#scans"),
    ("HINCRBY <pruned> g:scans -1", WINDOWS, "<pruned>#scans"),
    ("HDEL <pruned> g:scans", SUMS, "<pruned>#scans"),
    ("HINCRBY <pruned> q:scans 1", SUMS, "<pruned>#scans"),
    ("HINCRBY <pruned> d:scans -1", SUMS, "<pruned>#scans"),
    ("HDEL <pruned> final", "windows of final periods alone are pruned", "<pruned>#scans"),
    ("HSET <kept> from 1", WINDOWS, "<pruned>#scans"),
    ("DEL <window>", WINDOWS, "{p00}:o:gamma#scans"),
    ("HSET <window> to 8", WINDOWS, "{p00}:o:gamma#scans"),
    ("HSET <window> from 3", WINDOWS, "{p00}:o:gamma#scans"),
    ("HSET <window> start 7", "a window belongs to a counter", "{p00}:o:gamma"),
    ("HSET <window> state lost", "a window can be read", "{p00}:outbox"),
    ("HSET <window> org gone", "windows belong to organisations here", "{p00}:outbox"),
    ("HSET <window> state dead", "dead_windows = windows of that state", "{p00}:outbox"),
    ("DEL {p00}:outbox", "outbox = windows of that state", "{p00}:outbox"),
    ("DEL {p00}:settled", "settled = windows of that state", "{p00}:outbox"),
    ("ZADD {p00}:dirty 1 gone|checks", "dirty organisations exist", "{p00}:dirty"),
    ("HINCRBY {p00}:totals u:free:scans 1", "totals = units of all organisations", "{p00}:totals"),
    ("HINCRBY {p00}:o:beta p:free:scans 1", "totals = units of all organisations", "{p00}:totals"),
    ("HINCRBY {p00}:totals u:pro:scans 1", "totals = units of all organisations", "{p00}:totals"),
    ("HINCRBY {p00}:totals c:scans 1", "units taken out = units that no plan has", "{p00}:totals"),
    ("HINCRBY {p00}:o:beta p:pro:scans 1", "units taken out = units that no plan has", "{p00}:totals"),
    ("DEL {p00}:totals", "totals = units of all organisations", "{p00}:totals"),
    ("HINCRBY {p00}:plans free 1", "plans = organisations by plan", "{p00}:plans"),
    ("HSET {p00}:o:acme plan pro", "plans = organisations by plan", "{p00}:plans"),
    ("ZADD {p00}:orgs 0 gone", "index = organisations", "{p00}:orgs"),
    ("ZREM {p00}:orgs beta", "index = organisations", "{p00}:orgs"),
    ("ZADD {p00}:due 7 acme", "due = end of each claim", "{p00}:due"),
    ("ZADD {p00}:grace 7 acme", "grace = end of each grace", "{p00}:grace"),
    ("HSET {p00}:p:acme grace 7", "grace = end of each grace", "{p00}:grace"),
    ("ZREM {p00}:due beta", "due = end of each claim", "{p00}:due"),
    ("DEL {p00}:totals {p00}:plans {p00}:orgs {p00}:due {p00}:dirty", "index = organisations", "{p00}:orgs"),
    ("ZADD {p00}:api_keys 0 acme|0000000000000000000", "list = API keys", "{p00}:api_keys"),
    (
        "HSET {p00}:c:0000000000000000000 digest d name n org gone scopes keys live 1 made_by a created 1",
        "API keys belong to organisations",
        "{p00}:api_keys",
    ),
    ("RENAME {p00}:p:acme {p01}:p:acme", "lies in the partition of its organisation", "{p01}:p:acme"),
    ("HSET {p00}:o:acme u:scans many", "every figure can be read", RECORD),
    ("HDEL {p00}:o:acme ps", "every figure can be read", RECORD),
    ("HSET {p00}:totals u:free:scans many", "every figure can be read", "{p00}"),
)


@pytest.mark.parametrize(("command", "law", "place"), SPOILT, ids=[command for command, _, _ in SPOILT])
async def test_a_spoilt_figure_breaks_its_law_at_its_place(
    store: StoreServer, command: str, law: str, place: str
) -> None:
    async with data_set(store.url) as data:
        names = {"<archive>": data.archive, "<day>": data.day, "<february>": str(data.february_ms)}
        names |= {"<window>": data.window, "<pruned>": data.pruned, "<kept>": f"{{p00}}:b:{data.kept}"}
        for name, value in names.items():
            command, place = command.replace(name, value), place.replace(name, value)
        await data.ledger.client.execute_command(*command.split(" "))
        found = [(violation.law, violation.key) for violation in (await data.ledger.walk()).violations]
        assert (law, place) in found


def test_every_law_has_a_figure_that_breaks_it() -> None:
    """The laws are read out of the module itself, so that a new one without a row fails here."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(conservation))) if isinstance(node, ast.Call)]
    claims = [call.args[2] for call in calls if ast.unparse(call.func) == "report.claim"]
    plain = {claim.value for claim in claims if isinstance(claim, ast.Constant)}
    assert len(claims) > 15
    tree = ast.parse(inspect.getsource(window_laws))
    plain |= {law.value for law in _laws_told(tree) if isinstance(law, ast.Constant)}
    assert plain - {law for _, law, _ in SPOILT} == {MINUTES}


def _laws_told(tree: ast.Module) -> list[ast.expr]:
    """The first of each pair that is yielded."""
    yields = [node.value for node in ast.walk(tree) if isinstance(node, ast.Yield)]
    return [pair.elts[0] for pair in yields if isinstance(pair, ast.Tuple)]


async def test_a_walk_tells_keys_organisations_and_units(store: StoreServer) -> None:
    async with data_set(store.url) as data:
        report = await data.ledger.walk()
        assert (report.orgs, report.units) == (4, 13 + 2 + 12 + 3 + 12 + 1 + 14 + 3)
        assert report.keys == await data.ledger.client.dbsize()


async def test_minutes_that_hold_more_than_their_hour_are_found(store: StoreServer) -> None:
    async with data_set(store.url) as data:
        client, key = data.ledger.client, data.ledger.keys.minutes("acme", "scans", f"{data.year}020110")
        for fields, laws in (({"59": 12, "x59": 2}, []), ({"58": 1}, [MINUTES]), ({"58": 0, "x58": 1}, [MINUTES])):
            await client.hset(key, mapping=fields)
            await client.expire(key, 1000)
            assert [violation.law for violation in (await data.ledger.walk()).violations] == laws


async def test_one_unreadable_organisation_does_not_hide_what_another_breaks(store: StoreServer) -> None:
    async with data_set(store.url) as data:
        client = data.ledger.client
        await client.hset(RECORD, "u:scans", "many")
        await client.hincrby("{p00}:o:beta", "u:scans", 1)
        found = {(violation.law, violation.key) for violation in (await data.ledger.walk()).violations}
        assert ("used = sum of history", "{p00}:o:beta#scans") in found


async def test_history_that_retention_took_is_not_missed(store: StoreServer) -> None:
    async with data_set(store.url) as data:
        [january] = [key async for key in data.ledger.client.scan_iter(match=f"*:h:acme:checks:{data.year}01*")]
        await data.ledger.client.delete(january)
        assert (await data.ledger.walk()).violations
        kept = await walk(data.ledger.client, data.ledger.keys, history_from_ms=data.february_ms)
        assert kept.violations == []


# ── one organisation, while others write ─────────────────────────────────────────────────────────────────


async def checked(data: DataSet, org_id: str = "acme") -> list[str]:
    """The laws that the running period of an organisation breaks."""
    features = tuple(data.ledger.catalogue.features)
    report = await check_org(data.ledger.client, data.ledger.keys, org_id, features)
    return [violation.law for violation in report.violations]


async def test_a_lawful_organisation_passes_alone(store: StoreServer) -> None:
    async with data_set(store.url) as data:
        assert await checked(data) == []
        assert await checked(data, "nobody") == []


@pytest.mark.parametrize(
    ("field", "value", "law"),
    [
        ("u:scans", 13, "used = sum of history"),
        ("x:scans", 3, "overage = sum of its history"),
        ("s:scans", 3, "0 <= sealed <= overage accrued"),
        ("y:scans", 1, "overage = sum of its history"),
        ("u:calls", 1, "used = sum of history"),
    ],
)
async def test_a_spoilt_organisation_is_found_alone(store: StoreServer, field: str, value: Any, law: str) -> None:
    async with data_set(store.url) as data:
        await data.ledger.client.hset(RECORD, field, value)
        assert await checked(data) == [law]


async def test_an_organisation_is_found_lawful_while_it_is_written_to(store: StoreServer) -> None:
    """Record and history are read at one instant."""
    async with data_set(store.url) as data:
        track = data.ledger.callers[0].counters.track
        for turn in range(20):
            tracks = [asyncio.create_task(track(event("acme", 3, f"t{turn}.{n}"))) for n in range(10)]
            assert await checked(data) == []
            await asyncio.gather(*tracks)
