"""settle.lua: the way of a window ends once, with the counter's sums, lists and trail, also after its period."""

import pytest

from metering.errors import OrgCorrupt
from metering.store.window import Sink, State
from tests.lua.effecting import trail_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, outbox_of, sealed, window_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer

KEPT = {"delivered": (3, 0), "dead": (0, 0), "written_off": (0, 3)}


async def sums(ledger: Ledger, key: str) -> tuple[int, int]:
    found = await ledger.client.hmget(key, ["d:scans", "q:scans"])
    return int(found[0] or 0), int(found[1] or 0)


@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD, State.WRITTEN_OFF])
@pytest.mark.parametrize("closed", [False, True])
async def test_the_end_of_a_window_is_in_its_counter_its_list_and_the_trail(
    each_store: StoreServer, state: State, closed: bool
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        key = ledger.keys.record("acme")
        if closed:
            await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
            await ledger.callers[0].counters.track(event("acme", 12))
            key = ledger.keys.archive("acme", window.cut.period.start_ms)
        assert await outbox_of(ledger).settle(window, state, "why", attempts=1, sink=Sink.NONE)
        assert await sums(ledger, key) == KEPT[state]
        told = await window_of(ledger, window.id)
        assert (told.state, told.error, told.sink) == (state, "why", Sink.NONE)
        assert told.settled_ms is not None
        words = [entry for entry in await trail_of(ledger) if "window" in entry]
        if state is State.DELIVERED:
            assert words == []
        else:
            kind = "overage_refused" if state is State.DEAD else "overage_written_off"
            period = str(window.cut.period.start_ms)
            assert words == [
                {
                    "type": kind, "window": window.id, "feature": "scans", "units": "3", "period": period,
                    "reason": "why",
                }
            ]  # fmt: skip
            assert await ledger.client.hget("{p00}:totals", f"e:{kind}") == b"1"
        await lawful(ledger)


@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD, State.WRITTEN_OFF])
async def test_an_end_that_is_told_twice_is_one(each_store: StoreServer, state: State) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        assert await outbox_of(ledger).settle(window, state)
        before = await ledger.dump()
        assert not await outbox_of(ledger, 1).settle(window, state)
        assert not await outbox_of(ledger, 1).settle(window, State.DEAD)
        assert await ledger.dump() == before


async def test_a_refusal_of_an_older_attempt_ends_nothing(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        before = await ledger.dump()
        assert not await outbox_of(ledger).settle(window, State.DEAD, attempts=2)
        assert await ledger.dump() == before


async def test_a_dead_window_can_be_found_delivered_or_let_go(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        outbox = outbox_of(ledger)
        for units, state in ((13, State.DELIVERED), (1, State.WRITTEN_OFF)):
            await ledger.callers[0].counters.track(event("acme", units))
            window = await begun(ledger, await sealed(ledger))
            assert await outbox.settle(window, State.DEAD)
            assert await outbox.settle(window, state)
            await lawful(ledger)
        assert await sums(ledger, ledger.keys.record("acme")) == (3, 1)


async def test_a_delivered_window_that_stripe_could_not_use_is_dead_and_counted_out_once(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        outbox = outbox_of(ledger)
        assert not await outbox.settle(window, State.DEAD, revoked=True)
        assert await outbox.settle(window, State.DELIVERED)
        assert await outbox.settle(window, State.DEAD, "no customer", revoked=True)
        assert not await outbox.settle(window, State.DEAD, "no customer", revoked=True)
        assert await sums(ledger, ledger.keys.record("acme")) == (0, 0)
        await lawful(ledger)


@pytest.mark.parametrize("kind", ["outbox", "settled", "dead_windows", "totals"])
async def test_a_key_of_a_wrong_type_stops_an_end_before_its_first_write(each_store: StoreServer, kind: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        await ledger.client.set(f"{{p00}}:{kind}", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).settle(window, State.DEAD)
        assert await ledger.dump() == before


async def test_a_window_without_a_counter_is_corrupt(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        await ledger.client.hset(ledger.keys.record("acme"), "ps", 7)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).settle(window, State.DELIVERED)
        assert await ledger.dump() == before
