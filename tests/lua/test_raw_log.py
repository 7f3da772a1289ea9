"""The log of raw events: pages, filters, bounds, what others cannot read, and what is too old."""

from collections.abc import Awaitable
from typing import Any, Final

import orjson
import pytest

from metering.errors import StorageUnavailable
from metering.store.boxes import Unreadable
from metering.store.fields import new_data_key
from metering.store.org import Org
from metering.store.raw_events import opened
from metering.store.raw_log import GRACE_MS, LOOKED_MAX, RawEvent, RawLog, Wanted
from metering.usage import UsageEvent
from tests.lua.ledger import Ledger
from tests.support.raw_entries import fields_of
from tests.support.servers import StoreServer

DAY_MS: Final = 86_400_000
KEY: Final = "{p00}:events"


class Log:
    """One partition's log in a data set without a test clock, and an organisation in it."""

    def __init__(self, ledger: Ledger, retention_ms: int = 7 * DAY_MS) -> None:
        self.ledger = ledger
        time = ledger.callers[0].time
        self.raw = RawLog(ledger.client, ledger.keys, time, retention_ms=retention_ms)
        self.now_ms = time.now_ms()

    async def org(self, name: str) -> Org:
        """An organisation that is stored."""
        await self.ledger.callers[0].counters.track(UsageEvent(name, "scans"))
        found = await self.ledger.callers[0].orgs.get(name)
        assert found is not None
        return found

    async def add(self, org: Org, event_id: str, *, ago_ms: int = 0, feature: str = "scans", source: str = "") -> None:
        """An entry counted `ago_ms` ago."""
        event = UsageEvent(org.org_id, feature, 1, event_id, source)
        at_ms = self.now_ms - ago_ms
        await self.ledger.client.xadd(KEY, fields_of(event, org.profile.data_key, at_ms), id=f"{at_ms}-*")

    async def page(
        self, org: Org, limit: int = 50, cursor: str | None = None, **wanted: Any
    ) -> tuple[list[str | None], str | None]:
        """The event ids of a page, and its cursor."""
        entries, following = await self.raw.page(org, Wanted(**wanted), cursor, limit)
        return [_id(entry) for entry in entries], following


def _id(entry: RawEvent) -> str | None:
    return None if entry.details is None else entry.details.event_id


def ledger_of(store: StoreServer) -> Ledger:
    """One partition, so that everybody shares a stream."""
    return Ledger(store.url, partitions=1, callers=1, test_clock=False)


async def test_entries_come_newest_first_and_page_by_page(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        for number in range(5):
            await log.add(acme, f"e{number}", ago_ms=1000 - number)
        first, cursor = await log.page(acme, limit=2)
        second, later = await log.page(acme, limit=2, cursor=cursor)
        third, end = await log.page(acme, limit=2, cursor=later)
        assert (first, second, third, end) == (["e4", "e3"], ["e2", "e1"], ["e0"], None)


async def test_an_entry_shows_its_figures_and_what_was_said(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        details = orjson.dumps({"actor": "ann", "metadata": {"chain": "x"}})
        event = UsageEvent("acme", "scans", 5, "e1", "svc", 1_706_745_600_000, details=details)
        fields = fields_of(event, acme.profile.data_key, log.now_ms, n=3, x=1, used=13)
        name = (await ledger.client.xadd(KEY, fields)).decode()
        ((entry,), _) = await log.raw.page(acme, Wanted(), None, 50)
        assert (entry.id, entry.at_ms, entry.feature) == (name, log.now_ms, "scans")
        assert (entry.requested, entry.recorded, entry.overage, entry.used) == (5, 3, 1, 13)
        assert entry.details is not None
        assert (entry.details.actor, entry.details.metadata) == ("ann", {"chain": "x"})
        assert (entry.details.source, entry.details.timestamp_ms) == ("svc", 1_706_745_600_000)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"feature": "checks"}, ["e3"]),
        ({"event_id": "e1"}, ["e1", "e1"]),
        ({"event_id": "e1", "source": "svc"}, ["e1"]),
        ({"source": "svc"}, ["e1"]),
        ({"feature": "scans", "event_id": "e3"}, []),
        ({}, ["e3", "e2", "e1", "e1"]),
    ],
    ids=str,
)
async def test_only_what_is_wanted_comes(store: StoreServer, wanted: dict[str, Any], ids: list[str]) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        await log.add(acme, "e1", ago_ms=400)
        await log.add(acme, "e1", ago_ms=300, source="svc")
        await log.add(acme, "e2", ago_ms=200)
        await log.add(acme, "e3", ago_ms=100, feature="checks")
        assert await log.page(acme, **wanted) == (ids, None)


async def test_a_span_of_time_holds_its_start_and_not_its_end(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        for ago_ms in (3000, 2000, 1000):
            await log.add(acme, f"e{ago_ms}", ago_ms=ago_ms)
        found = await log.page(acme, from_ms=log.now_ms - 2000, to_ms=log.now_ms - 1000)
        assert found == (["e2000"], None)
        assert await log.page(acme, to_ms=0) == ([], None)
        assert await log.page(acme, from_ms=log.now_ms + DAY_MS) == ([], None)


async def test_what_is_older_than_it_is_kept_is_not_shown_even_where_it_is_still_there(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger, retention_ms=DAY_MS)
        acme = await log.org("acme")
        await log.add(acme, "old", ago_ms=DAY_MS + 60_000)
        await log.add(acme, "young", ago_ms=DAY_MS - 60_000)
        assert await log.page(acme) == (["young"], None)


async def test_an_organisation_sees_its_own_entries_alone(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme, beta = await log.org("acme"), await log.org("beta")
        for number in range(4):
            await log.add(acme, f"acme-{number}", ago_ms=100 - 2 * number)
            await log.add(beta, f"beta-{number}", ago_ms=99 - 2 * number)
        assert await log.page(beta) == (["beta-3", "beta-2", "beta-1", "beta-0"], None)


async def test_a_quiet_organisation_is_found_over_pages_that_look_at_so_much_each(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme, beta = await log.org("acme"), await log.org("beta")
        await log.add(acme, "e1", ago_ms=60_000)
        fields = fields_of(UsageEvent("beta", "scans"), beta.profile.data_key, log.now_ms)
        pipe = ledger.client.pipeline(transaction=False)
        for _ in range(LOOKED_MAX + 1):
            pipe.xadd(KEY, fields)
        await pipe.execute()
        first, cursor = await log.page(acme)
        assert first == []
        assert cursor is not None
        assert await log.page(acme, cursor=cursor) == (["e1"], None)


async def test_nothing_of_what_callers_said_can_be_read_in_the_store(store: StoreServer) -> None:
    """Deleting the organisation's key is then all it takes to erase it here."""
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme-industries")
        details = orjson.dumps({"actor": "ann.smith", "metadata": {"wallet": "0xfeed"}})
        event = UsageEvent("acme-industries", "scans", 1, "evt-secret", "svc-secret", details=details)
        await ledger.client.xadd(KEY, fields_of(event, acme.profile.data_key, log.now_ms))
        dumped = await ledger.client.dump(KEY)
        ((_, fields),) = await ledger.client.xrange(KEY)
        for word in (b"acme-industries", b"evt-secret", b"svc-secret", b"ann.smith", b"wallet", b"0xfeed"):
            assert word not in dumped
            assert not any(word in value for value in fields.values())
        with pytest.raises(Unreadable):
            opened(fields[b"box"], new_data_key())


async def test_an_organisation_that_begins_again_with_another_key_sees_nothing_of_before(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        await log.add(acme, "e1")
        await ledger.client.flushdb()
        await ledger.client.xadd(KEY, fields_of(UsageEvent("acme", "scans"), acme.profile.data_key, log.now_ms))
        ledger.callers[0].counters.forget("acme")
        again = await log.org("acme")
        assert await log.page(again) == ([], None)


@pytest.mark.parametrize("spoilt", [{"at": "soon"}, {"q": ""}, {"used": "x"}])
async def test_an_entry_of_no_known_shape_is_passed_over(store: StoreServer, spoilt: dict[str, Any]) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        await log.add(acme, "e1")
        fields = fields_of(UsageEvent("acme", "scans"), acme.profile.data_key, log.now_ms)
        await ledger.client.xadd(KEY, fields | spoilt)
        await ledger.client.xadd(KEY, {"org": fields["org"]})
        assert await log.page(acme) == (["e1"], None)


async def test_an_entry_whose_box_is_spoilt_shows_its_figures(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger)
        acme = await log.org("acme")
        fields = fields_of(UsageEvent("acme", "scans", 5), acme.profile.data_key, log.now_ms)
        await ledger.client.xadd(KEY, fields | {"box": "AAAA"})
        ((entry,), _) = await log.raw.page(acme, Wanted(), None, 50)
        assert (entry.requested, entry.details) == (5, None)
        assert await log.page(acme, event_id="e1") == ([], None)


async def test_what_is_too_old_is_removed_also_where_nobody_writes(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger, retention_ms=2 * DAY_MS)
        acme = await log.org("acme")
        for days in (9, 5, 3, 1):
            await log.add(acme, f"{days}d", ago_ms=days * DAY_MS)
        await log.raw.trim()
        assert await ledger.client.xlen(KEY) == 1


async def test_without_retention_only_entries_of_the_last_day_are_left(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        log = Log(ledger, retention_ms=0)
        acme = await log.org("acme")
        await log.add(acme, "old", ago_ms=GRACE_MS + 60_000)
        await log.add(acme, "young", ago_ms=GRACE_MS - 60_000)
        await log.raw.trim()
        assert await ledger.client.xlen(KEY) == 1
        assert await log.page(acme) == ([], None)


async def test_trimming_makes_no_key(store: StoreServer) -> None:
    async with ledger_of(store) as ledger:
        await Log(ledger).raw.trim()
        assert await ledger.dump() == {}


async def test_a_store_that_is_away_is_a_problem_of_the_store() -> None:
    with StoreServer() as server:
        async with ledger_of(server) as ledger:
            log = Log(ledger)
            acme = await log.org("acme")
            server.kill()
            calls: list[Awaitable[object]] = [log.page(acme), log.raw.trim()]
            for call in calls:
                with pytest.raises(StorageUnavailable):
                    await call
