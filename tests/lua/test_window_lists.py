"""Windows page by page: every one once, whatever the page, also when others come, go and are tried meanwhile."""

import pytest

from metering.store.fields import FieldCodec
from metering.store.window import State
from metering.store.window_lists import WAITING, Place, WindowLists
from tests.lua.ledger import Ledger
from tests.lua.outboxes import outbox_of, start_of
from tests.lua.scenes import calm, event
from tests.support.servers import StoreServer

STATES = [State.SEALED, State.INFLIGHT, State.DELIVERED, State.DEAD, State.WRITTEN_OFF]


async def windows(ledger: Ledger, number: int) -> dict[str, tuple[str, State]]:
    """One window each of so many organisations, in all states by turns: id -> organisation, state."""
    made: dict[str, tuple[str, State]] = {}
    outbox = outbox_of(ledger)
    for at in range(number):
        org_id, state = f"org-{at}", STATES[at % len(STATES)]
        await ledger.callers[0].counters.track(event(org_id, 11 + at))
        name = await outbox.seal(f"{org_id}|scans")
        assert name is not None
        window = await outbox.window_of(org_id, name)
        assert window is not None
        if state is not State.SEALED:
            await outbox.attempt(window, start_of(window))
        if state not in {State.SEALED, State.INFLIGHT}:
            await outbox.settle(window, state)
        made[name] = org_id, state
    return made


def lists_of(ledger: Ledger, **bounds: int) -> WindowLists:
    return WindowLists(ledger.client, ledger.keys, FieldCodec(), **bounds)


async def walk(lists: WindowLists, limit: int, states: set[State], org_id: str | None = None) -> list[str]:
    found: list[str] = []
    place: Place | None = None
    while True:
        page, place = await lists.page(states, org_id, limit, place)
        assert len(page) <= limit
        found += [one.window.id for one in page]
        if place is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("read", [1, 2, 200])
async def test_every_window_is_on_one_page(store: StoreServer, limit: int, read: int) -> None:
    async with calm(store.url, partitions=2) as ledger:
        made = await windows(ledger, 20)
        lists = lists_of(ledger, read=read)
        for states in ({State.DEAD}, set(WAITING), set(STATES), {State.DELIVERED}):
            expected = sorted(name for name, (_, state) in made.items() if state in states)
            assert sorted(await walk(lists, limit, states)) == expected
        assert await walk(lists, limit, set(STATES), "org-3") == [n for n, (org, _) in made.items() if org == "org-3"]


async def test_a_page_is_short_rather_than_slow(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        made = await windows(ledger, 10)
        lists = lists_of(ledger, read=1, reads_max=2)
        page, place = await lists.page(set(STATES), None, 10)
        assert (len(page), place is not None) == (2, True)
        assert sorted(await walk(lists, 10, set(STATES))) == sorted(made)


async def test_a_window_that_is_tried_while_others_are_read_is_not_missed(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        made = await windows(ledger, 10)
        first, place = await lists_of(ledger).page(set(WAITING), None, 2)
        for listed in first:
            await outbox_of(ledger).postpone(listed.window, await ledger.now_ms() + 99_000)
        rest, _ = await lists_of(ledger).page(set(WAITING), None, 100, place)
        names = [one.window.id for one in (*first, *rest)]
        assert sorted(names) == sorted(name for name, (_, state) in made.items() if state in WAITING)


async def test_what_stripe_does_not_have_is_counted_by_state(store: StoreServer) -> None:
    async with calm(store.url, partitions=2) as ledger:
        await windows(ledger, 10)
        counts = await lists_of(ledger).counts(None)
        figures = {state: (count.windows, count.units) for state, count in counts.items()}
        assert figures == {State.SEALED: (2, 7), State.INFLIGHT: (2, 9), State.DEAD: (2, 13)}
        now_ms = await ledger.now_ms()
        assert all(0 < count.oldest_ms <= now_ms for count in counts.values())
        one = await lists_of(ledger).counts("org-3")
        assert {state: count.windows for state, count in one.items()} == {
            State.SEALED: 0,
            State.INFLIGHT: 0,
            State.DEAD: 1,
        }


async def test_a_row_that_no_script_wrote_is_left_out(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        made = await windows(ledger, 5)
        dead = next(name for name, (_, state) in made.items() if state is State.DEAD)
        await ledger.client.hset(f"{{p00}}:b:{dead}", "from", "junk")
        assert await walk(lists_of(ledger), 10, {State.DEAD}) == []
