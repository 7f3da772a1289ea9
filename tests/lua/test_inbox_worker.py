"""Stripe's events take effect once each, in any order; what passes waits, what fails by itself stands aside."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

from metering.billing.errors import Barred, GatewayError, NotThere, Refused, TooMany, Unknown
from metering.billing.inbox import BARRED_S, FAILURES_MAX, TRIES_MAX, InboxWorker, React
from metering.clock import HandClock
from metering.erasure_errors import OrgErased
from metering.errors import (
    InternalError,
    LedgerFull,
    OrgCorrupt,
    Problem,
    StorageUnavailable,
    VersionConflict,
)
from tests.lua.letters import KEYS, client_of, counted, entries, ids, inbox_of, stripe_event
from tests.support.servers import StoreServer
from webhooks.stripe_events import StripeEvent

ONES: Final = [n for n in range(40) if KEYS.event_partition(f"evt_{n}") == 0][:8]
"""Numbers of events that wait in one partition."""


class Reactions:
    """What happened, by object: an effect stays one however often it is asked for, as its mark makes it.

    `fails` says what an event raises instead, given how often it was tried before.
    """

    def __init__(
        self, fails: Callable[[StripeEvent, int], Exception | None] = lambda *_: None, *, nobodys: bool = False
    ) -> None:
        self.asked: Counter[str] = Counter()
        self.order: list[str] = []
        self._fails, self._nobodys = fails, nobodys

    async def react(self, event: StripeEvent) -> bool:
        before = self.asked[event.event_id]
        self.asked[event.event_id] += 1
        if (error := self._fails(event, before)) is not None:
            raise error
        self.order.append(event.event_id)
        return not self._nobodys


def worker(client: Any, react: React, *, clock: HandClock | None = None, **options: Any) -> InboxWorker:
    return InboxWorker(inbox_of(client), react, (clock or HandClock(0)).monotonic, **({"idle_ms": 0} | options))


async def receive(client: Any, *events: StripeEvent) -> None:
    for event in events:
        await inbox_of(client).receive(event)


async def test_what_came_in_takes_effect_and_is_gone(each_store: StoreServer) -> None:
    async with client_of(each_store) as client:
        seen = Reactions()
        await receive(client, *map(stripe_event, range(5)))
        await worker(client, seen.react).turn()
        assert seen.asked == {f"evt_{n}": 1 for n in range(5)}
        assert (await entries(client), await counted(client)) == ([], {})


async def test_every_order_of_five_events_with_repeats_has_each_effect_once(client: Any) -> None:
    """All 120 orders, each event delivered once more at a random later place: the receiving side of it."""
    kinds = ("customer.subscription.created", "customer.subscription.updated", "invoice.created", "invoice.paid")
    for number, order in enumerate(itertools.permutations(range(5))):
        drawn = random.Random(number)
        events = [stripe_event(5 * number + n, kinds[n % len(kinds)]) for n in order]
        for event in tuple(events):
            events.insert(drawn.randint(events.index(event) + 1, len(events)), event)
        seen = Reactions()
        for event in events:
            await receive(client, event)
            if drawn.random() < 0.3:
                await worker(client, seen.react).turn()
        await worker(client, seen.react).turn()
        assert seen.asked == {event.event_id: 1 for event in events}, number
    assert await entries(client) == []


async def test_row_16_a_worker_that_dies_after_the_effect_repeats_the_reaction_and_nothing_else(client: Any) -> None:
    """Red when the event leaves the inbox before its effect: then nobody would try again."""
    seen = Reactions()
    await receive(client, stripe_event(1))

    async def killed(event: StripeEvent) -> bool:
        await seen.react(event)
        raise asyncio.CancelledError

    await worker(client, killed).turn()
    assert await ids(client) == ["evt_1"]
    await receive(client, stripe_event(1))
    await worker(client, seen.react).turn()
    assert (seen.asked["evt_1"], await ids(client)) == (2, [])


async def test_row_16_many_workers_share_the_events(client: Any) -> None:
    seen = Reactions()
    await receive(client, *map(stripe_event, range(60)))
    await asyncio.gather(*(worker(client, seen.react, idle_ms=60_000).turn() for _ in range(4)))
    assert seen.asked == {f"evt_{n}": 1 for n in range(60)}
    assert await entries(client) == []


async def test_money_for_an_erased_organisation_stands_aside_at_once(client: Any) -> None:
    """No further try mends it: somebody has to give it back. The others go on."""
    seen = Reactions(lambda event, _: OrgErased() if event.event_id == "evt_1" else None)
    await receive(client, stripe_event(1), stripe_event(2))
    await worker(client, seen.react).turn()
    await worker(client, seen.react).turn()
    assert (seen.asked["evt_1"], seen.order, await ids(client)) == (1, ["evt_2"], [])
    assert await ids(client, "dead_inbox") == ["evt_1"]


async def test_an_event_that_another_worker_has_is_let_be(client: Any) -> None:
    seen = Reactions()
    await receive(client, stripe_event(1))
    assert await inbox_of(client).unread(KEYS.event_partition("evt_1")) is not None
    await worker(client, seen.react, idle_ms=60_000).turn()
    assert seen.asked == {}
    await worker(client, seen.react).turn()
    assert seen.asked == {"evt_1": 1}


async def test_an_event_of_nobody_is_counted_here_once(client: Any) -> None:
    await receive(client, stripe_event(1, "invoice.paid"), stripe_event(2, "invoice.paid"))
    await worker(client, Reactions(nobodys=True).react).turn()
    await receive(client, stripe_event(3))
    await worker(client, Reactions().react).turn()
    assert (await entries(client), await counted(client)) == ([], {"invoice.paid": 2})


PASSING: Final = [
    TooMany(), Unknown(), Barred(), StorageUnavailable(), LedgerFull(), VersionConflict(),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_what_passes_by_itself_waits_however_long_it_takes(client: Any, error: Exception) -> None:
    clock, seen = HandClock(0), Reactions(lambda _, before: error if before < 3 * TRIES_MAX else None)
    await receive(client, stripe_event(1))
    for _ in range(3 * TRIES_MAX):
        await worker(client, seen.react, clock=clock).turn()
        clock.advance(int(BARRED_S) * 1000)
        assert (await ids(client), await ids(client, "dead_inbox")) == (["evt_1"], [])
    await worker(client, seen.react, clock=clock).turn()
    assert (seen.order, await ids(client)) == (["evt_1"], [])


async def test_what_passed_leaves_all_its_tries_to_an_event(each_store: StoreServer) -> None:
    """Red when waiting counts as trying: the first fault after an outage would be the last."""
    seen = Reactions(lambda _, before: Unknown() if before < 2 * TRIES_MAX else Refused())
    async with client_of(each_store) as client:
        await receive(client, stripe_event(1))
        for _ in range(2 * TRIES_MAX + TRIES_MAX - 1):
            await worker(client, seen.react).turn()
            assert await ids(client, "dead_inbox") == []
        await worker(client, seen.react).turn()
        assert (await ids(client), await ids(client, "dead_inbox")) == ([], ["evt_1"])


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Refused("no such thing", code="parameter_invalid"), "Refused parameter_invalid no such thing"),
        (NotThere(), "NotThere"),
        (InternalError(), "internal-error"),
        (OrgCorrupt(), "org-corrupt"),
        (KeyError("x"), "KeyError"),
    ],
)
async def test_what_fails_by_itself_is_given_up_after_some_tries_and_stops_nobody(
    client: Any, error: Exception, why: str
) -> None:
    seen = Reactions(lambda event, _: error if event.event_id == f"evt_{ONES[0]}" else None)
    await receive(client, *map(stripe_event, ONES))
    for turn in range(1, TRIES_MAX + 1):
        assert await entries(client, "dead_inbox") == []
        await worker(client, seen.react).turn()
        assert len(seen.order) == len(ONES) - 1, turn
    (buried,) = await entries(client, "dead_inbox")
    assert (buried[b"event"].decode(), buried[b"why"].decode()) == (f"evt_{ONES[0]}", why)
    assert await entries(client) == []


async def test_an_event_that_kills_its_worker_is_given_up(client: Any) -> None:
    async def killed(_: StripeEvent) -> bool:
        raise asyncio.CancelledError

    await receive(client, stripe_event(1))
    for _ in range(TRIES_MAX):
        await worker(client, killed).turn()
    seen = Reactions()
    await worker(client, seen.react).turn()
    assert (seen.asked, await ids(client), await ids(client, "dead_inbox")) == ({}, [], ["evt_1"])


async def test_an_entry_that_cannot_be_read_is_given_up_at_once(client: Any) -> None:
    await client.xadd("{p00}:inbox", {"event": "evt_x", "type": "invoice.paid", "box": "AAAA"})
    await receive(client, stripe_event(1))
    seen = Reactions()
    await worker(client, seen.react).turn()
    assert seen.order == ["evt_1"]
    assert [entry[b"why"] for entry in await entries(client, "dead_inbox")] == [b"Unreadable"]


@pytest.mark.parametrize(("error", "asked"), [(TooMany(), 1), (Barred(), 1), (Unknown(), FAILURES_MAX)])
async def test_where_stripe_is_away_the_others_are_not_tried_in_vain(
    client: Any, error: GatewayError, asked: int
) -> None:
    seen = Reactions(lambda *_: error)
    await receive(client, *map(stripe_event, ONES))
    await worker(client, seen.react, idle_ms=60_000).turn()
    assert seen.asked.total() == asked


async def test_an_event_that_stripe_does_not_answer_to_holds_up_no_other(client: Any) -> None:
    seen = Reactions(lambda event, _: Unknown() if event.event_id == f"evt_{ONES[0]}" else None)
    await receive(client, *map(stripe_event, ONES))
    await worker(client, seen.react, idle_ms=60_000).turn()
    assert len(seen.order) == len(ONES) - 1


@pytest.mark.parametrize(
    ("error", "pause_s"), [(TooMany(retry_after_s=30), 30), (TooMany(), 5), (Barred(), BARRED_S)], ids=str
)
async def test_stripe_is_let_be_for_as_long_as_it_says(client: Any, error: GatewayError, pause_s: int) -> None:
    clock, seen = HandClock(0), Reactions(lambda _, before: None if before else error)
    await receive(client, stripe_event(1))
    reacting = worker(client, seen.react, clock=clock)
    await reacting.turn()
    clock.advance(int(pause_s * 1000) - 1)
    await reacting.turn()
    assert seen.asked.total() == 1
    clock.advance(1)
    await reacting.turn()
    assert seen.order == ["evt_1"]


async def test_row_26_an_event_of_the_other_mode_has_no_effect(client: Any) -> None:
    """It came in before the service had a key that told it its mode."""
    seen = Reactions()
    await receive(client, stripe_event(1, livemode=True), stripe_event(2, livemode=False))
    await worker(client, seen.react, livemode=True).turn()
    assert (seen.order, await entries(client), await counted(client)) == (["evt_1"], [], {})


async def test_one_damaged_partition_stops_no_other_and_is_told(client: Any) -> None:
    other = next(n for n in range(40) if KEYS.event_partition(f"evt_{n}") == 1)
    await client.set("{p00}:totals", "x")
    seen = Reactions(nobodys=True)
    await receive(client, stripe_event(ONES[0]), stripe_event(other))
    with pytest.raises(Problem):
        await worker(client, seen.react).turn()
    assert await ids(client) == [f"evt_{ONES[0]}"]


async def test_a_store_that_is_away_ends_the_turn(store: StoreServer) -> None:
    async with client_of(store) as client:
        await receive(client, *map(stripe_event, ONES))
        seen = Reactions()

        async def away(event: StripeEvent) -> bool:
            store.kill()
            return await seen.react(event)

        with pytest.raises(StorageUnavailable):
            await worker(client, away).turn()
        assert seen.asked.total() == 1
        store.start()
        await worker(client, seen.react).turn()
        assert set(seen.asked) == {f"evt_{n}" for n in ONES}


async def test_where_nothing_waits_nothing_is_written(client: Any) -> None:
    seen = Reactions()
    await receive(client, stripe_event(1))
    await worker(client, seen.react).turn()
    before = {key: await client.dump(key) for key in await client.keys("*")}
    await worker(client, seen.react).turn()
    assert {key: await client.dump(key) for key in await client.keys("*")} == before
