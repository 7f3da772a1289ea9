"""What no webhook brought is read from Stripe's list: all of it, through the same door, with no second effect."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from metering.billing.catch_up import EVERY_S, OVERLAP_S, CatchUp, Caught
from metering.billing.errors import GatewayError, Unknown
from metering.billing.gateway import API_VERSION
from metering.billing.inbox import InboxWorker
from metering.billing.intake import Intake
from metering.clock import HandClock
from metering.errors import Overloaded, StorageUnavailable
from metering.store.event_cursor import EventCursor
from tests.lua.letters import KEYS, client_of, counted, ids, inbox_of
from tests.support.servers import StoreServer
from tests.support.stripe_mail import snapshot, thin
from webhooks.stripe_events import StripeEvent, event_of

T0_S: Final = 1_790_000_000


class StripeList:
    """Stripe's list of events, as `metering.billing.gateway.Events` tells it, `page` at a time.

    `fails` is raised by the call of that number.
    """

    def __init__(self, *rows: dict[str, Any], page: int = 100, fails: tuple[int, GatewayError] | None = None) -> None:
        self.rows, self.page, self.fails = list(rows), page, fails
        self.asked: list[tuple[str | None, int | None]] = []
        self.reports: list[dict[str, Any]] = []
        self.asked_reports: list[tuple[tuple[str, ...], int | None]] = []

    async def events(self, *, after: str | None = None, since_s: int | None = None) -> list[dict[str, Any]]:
        self.asked.append((after, since_s))
        if self.fails is not None and len(self.asked) == self.fails[0]:
            raise self.fails[1]
        names = [row["id"] for row in self.rows]
        start = names.index(after) + 1 if after else 0
        return [row for row in self.rows[start:] if row["created"] >= (since_s or 0)][: self.page]

    async def thin_event(self, event_id: str) -> dict[str, Any]:
        raise NotImplementedError(event_id)

    async def thin_events(self, types: Sequence[str], *, since_s: int | None = None) -> list[dict[str, Any]]:
        self.asked_reports.append((tuple(types), since_s))
        return self.reports


def row(number: int, at_s: int = T0_S, kind: str = "customer.subscription.updated", **fields: Any) -> dict[str, Any]:
    return snapshot(f"evt_{number}", kind, created=at_s, **fields)


def catch_up(client: Any, listed: StripeList, *, clock: HandClock | None = None, **options: Any) -> CatchUp:
    now_ms = (clock or HandClock(T0_S * 1000)).now_ms
    return CatchUp(listed, Intake(inbox_of(client, **options), livemode=False), EventCursor(client, KEYS), now_ms)


async def until_s(client: Any) -> int | None:
    return (await EventCursor(client, KEYS).read()).until_s


async def reacted(client: Any, effects: dict[str, int]) -> None:
    """React to what is in the inbox; `effects` counts by event."""

    async def react(event: StripeEvent) -> bool:
        effects[event.event_id] = effects.get(event.event_id, 0) + 1
        return False

    await InboxWorker(inbox_of(client), react, HandClock(0).monotonic, idle_ms=0).turn()


async def test_row_20_four_days_without_webhooks_are_made_up_for_and_nothing_happens_twice(
    each_store: StoreServer,
) -> None:
    """Red when webhooks are taken for complete, or the list goes past the marks of the inbox."""
    async with client_of(each_store) as client:
        rows = [row(n, T0_S + n * 3_600) for n in range(96)]
        effects: dict[str, int] = {}
        for one in rows[:10]:
            await inbox_of(client).receive(event_of(one))
        await reacted(client, effects)
        assert await catch_up(client, StripeList(*rows, page=7)).run() == Caught(kept=86, known=10)
        await reacted(client, effects)
        for one in rows[50:]:
            await inbox_of(client).receive(event_of(one))
        await reacted(client, effects)
        assert effects == {f"evt_{n}": 1 for n in range(96)}
        assert await counted(client) == {"customer.subscription.updated": 96}
        assert await until_s(client) == T0_S + 95 * 3_600


async def test_the_first_reading_asks_for_everything_and_the_next_for_what_is_new(client: Any) -> None:
    listed = StripeList(*(row(n, T0_S + n * 10_000) for n in range(3)))
    await catch_up(client, listed).run()
    listed.rows.append(row(3, T0_S + 30_000))
    assert await catch_up(client, listed).run() == Caught(kept=1, known=1)
    assert [since for after, since in listed.asked if after is None] == [None, T0_S + 20_000 - OVERLAP_S]


async def test_an_event_that_enters_the_list_late_is_found(client: Any) -> None:
    """Red when reading goes on after the last id: events of one second are in no order."""
    listed = StripeList(row(1, T0_S), row(3, T0_S + 2))
    await catch_up(client, listed).run()
    listed.rows.insert(1, row(2, T0_S + 1))
    assert (await catch_up(client, listed).run()).kept == 1
    assert await ids(client) == ["evt_1", "evt_2", "evt_3"]


@pytest.mark.parametrize("call", [1, 2, 3])
async def test_row_5_what_is_cut_off_goes_on_where_it_was_and_loses_nothing(client: Any, call: int) -> None:
    """Red when the cursor moves before the events are in, or only when all of them are."""
    rows = [row(n, T0_S + n * 10_000) for n in range(6)]
    cut = StripeList(*rows, page=2, fails=(call, Unknown()))
    with pytest.raises(Unknown):
        await catch_up(client, cut).run()
    assert len(await ids(client)) == 2 * (call - 1)
    again = StripeList(*rows, page=2)
    await catch_up(client, again).run()
    assert await ids(client) == [f"evt_{n}" for n in range(6)]
    last = 2 * (call - 1) - 1
    assert again.asked[0] == (None, None if last < 0 else T0_S + last * 10_000 - OVERLAP_S)


async def test_reports_of_meters_which_no_list_of_snapshots_has_are_read_since_the_last_reading(client: Any) -> None:
    report = thin("evt_test_r", "billing.meter.error_report_triggered")
    listed = StripeList(row(0, T0_S))
    listed.reports = [report, thin("evt_test_m", "billing.meter.no_meter_found", related_object=None)]
    clock = HandClock(T0_S * 1000)
    assert await catch_up(client, listed, clock=clock).run() == Caught(kept=3)
    clock.advance(7_200_000)
    assert (await catch_up(client, listed, clock=clock).run()).kept == 0
    types = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")
    assert listed.asked_reports == [(types, None), (types, T0_S - OVERLAP_S)]


async def test_an_operator_hears_once_of_each_other_version(client: Any) -> None:
    versions = [API_VERSION, "2025-03-31.basil", "2025-03-31.basil", "2024-06-20"]
    listed = StripeList(*(row(n, T0_S, api_version=version) for n, version in enumerate(versions)))
    with capture_logs() as told:
        assert (await catch_up(client, listed).run()).kept == 4
    assert [line["version"] for line in told if "version" in line] == ["2025-03-31.basil", "2024-06-20"]


async def test_a_full_inbox_leaves_the_cursor_where_it_was(client: Any) -> None:
    listed = StripeList(*(row(n, T0_S + n) for n in range(20)))
    with pytest.raises(Overloaded):
        await catch_up(client, listed, most=3).run()
    assert await until_s(client) is None
    await catch_up(client, listed).run()
    assert len(await ids(client)) == 20


async def test_a_store_that_goes_away_leaves_the_cursor_where_it_was(store: StoreServer) -> None:
    async with client_of(store) as client:
        rows = [row(n, T0_S + n) for n in range(4)]
        await catch_up(client, StripeList(*rows[:2])).run()
        store.kill()
        with pytest.raises(StorageUnavailable):
            await catch_up(client, StripeList(*rows)).run()
        store.start()
        assert await until_s(client) == T0_S + 1
        assert (await catch_up(client, StripeList(*rows)).run()).kept == 2


async def test_readings_at_the_same_time_take_each_event_in_once(client: Any) -> None:
    rows = [row(n, T0_S + n) for n in range(40)]
    caught = await asyncio.gather(*(catch_up(client, StripeList(*rows, page=5 + n)).run() for n in range(5)))
    assert sum(one.kept for one in caught) == 40
    assert sum(one.events for one in caught) == 200
    assert await until_s(client) == T0_S + 39


async def test_what_is_not_for_us_is_read_over(client: Any) -> None:
    listed = StripeList(row(1, kind="price.created"), row(2, livemode=True), row(3) | {"type": None}, row(4))
    assert await catch_up(client, listed).run() == Caught(kept=1, ignored=3)
    assert await ids(client) == ["evt_4"]


async def test_of_all_workers_one_reads_every_hour(client: Any) -> None:
    clock, listed = HandClock(T0_S * 1000), StripeList(row(1))
    workers = [catch_up(client, listed, clock=clock) for _ in range(3)]
    for one in workers:
        await one.turn()
    assert len(listed.asked) == 2
    clock.advance(int(EVERY_S * 1000) - 1)
    await workers[0].turn()
    assert len(listed.asked) == 2
    clock.advance(1)
    await workers[1].turn()
    assert len(listed.asked) == 4


async def test_a_reading_that_failed_is_tried_again_at_the_next_look(client: Any) -> None:
    clock, listed = HandClock(T0_S * 1000), StripeList(row(1), fails=(2, Unknown()))
    with pytest.raises(Unknown):
        await catch_up(client, listed, clock=clock).turn()
    await catch_up(client, listed, clock=clock).turn()
    assert len(listed.asked) == 4
