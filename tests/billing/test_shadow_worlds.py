"""A shadow whose account goes wrong in its own way, beside a billing side that must not notice."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from metering.billing.desk import Desk
from metering.billing.errors import Refused
from metering.billing.gateway import MeterEvent
from metering.billing.gateways.live import LiveGateway, Timeouts
from metering.billing.late import METER_AGE_MAX_MS
from metering.billing.meter_reports import MeterReport
from metering.store.outbox import KNOWN_MS
from metering.store.window_lists import WindowLists
from tests.billing.rig import Crash
from tests.billing.test_shadow import METER, Scene, scene
from tests.lua.exporting import exporter_of
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import HOUR_MS, event
from tests.support.sandbox_world import World, a_world
from tests.support.servers import StoreServer

DAY_AND_MORE: Final = KNOWN_MS // HOUR_MS + 3
"""Hours after which no Stripe knows an identifier any more."""


class Bad(LiveGateway):
    """Another connection to the second account, on which sending ends with what `ends` says; None: as ever."""

    def __init__(self, at: Scene, ends: Callable[[MeterEvent], BaseException | None]) -> None:
        timeouts = Timeouts(read_s=0.3, attempt_s=0.5)
        super().__init__("sk_test_shadow", clock=at.clock, api_base=at.world.url, timeouts=timeouts)
        self._ends = ends

    async def send_meter_event(self, event: MeterEvent, *, attempt: int) -> None:
        end = self._ends(event)
        if end is not None:
            raise end
        await super().send_meter_event(event, attempt=attempt)


class Counted(LiveGateway):
    """The first account; remembers what it was asked."""

    calls: list[tuple[Any, ...]]

    async def _ask(self, call: Any, *ids: str, params: Any = None, **options: Any) -> Any:
        payload = (params or {}).get("payload", {})
        self.calls.append((call.__qualname__, *ids, payload.get("value")))
        return await super()._ask(call, *ids, params=params, **options)


async def test_a_meter_that_the_second_account_lacks_is_made_before_anything_is_told(store: StoreServer) -> None:
    """Stripe takes usage of no meter, answers 200, and drops it."""
    async with scene(store.url, meters=False) as at:
        await at.bill(units=12)
        await at.hours(1)
        for _ in range(2):
            await at.shadow().turn()
        assert await at.sums() == at.till.sums() == {"cus_1": 2, "cus_2": 2}
        assert sorted(row["event_name"] for row in at.world.rows("billing.meter")) == ["open_over", "scans_over"]


async def test_what_was_settled_just_now_waits_as_others_may_still_sort_before_it(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill("acme", units=12)
        await at.ledger.callers[0].counters.track(event("beta", 12))
        await exporter_of(at.ledger, at.till).turn()
        await at.shadow().turn()
        assert await at.sums() == {"cus_1": 2, "cus_2": 0}
        await at.steady()
        await at.shadow().turn()
        assert await at.sums() == at.till.sums() == {"cus_1": 2, "cus_2": 2}


async def test_what_its_clock_has_not_reached_is_told_when_it_has(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.hours(2)
        at.world.now[0] -= 2 * 3600
        await at.bill(units=12)
        await at.shadow().turn()
        assert at.accepted() == []
        await at.hours(2)
        await at.shadow().turn()
        assert await at.sums() == at.till.sums()


async def test_what_arrived_unheard_before_an_outage_of_more_than_a_day_is_told_once(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.hours(1)
        await at.world.say("POST", "/sandbox/faults", kind="reset_after", path=METER)
        await at.shadow().turn()
        assert len(at.accepted()) == 1
        await at.hours(DAY_AND_MORE)
        await at.shadow().turn()
        assert await at.sums() == at.till.sums() == {"cus_1": 2, "cus_2": 2}


async def test_a_window_that_the_first_account_took_twice_over_is_told_once(store: StoreServer) -> None:
    """It was reported as unusable, and replayed when no Stripe knew its identifier any more."""
    async with scene(store.url) as at:
        await at.bill("acme", units=12)
        await at.hours(1)
        await at.shadow().turn()
        [name] = [one.identifier for one in at.till.taken]
        report = MeterReport("mtr_1", {"archived_meter": 1}, {name: "archived_meter"}, 0, 0)
        await exporter_of(at.ledger, at.till).reported(report)
        at.till.taken.clear()
        lists = WindowLists(at.ledger.client, at.ledger.keys)
        await Desk(outbox_of(at.ledger), lists, at.ledger.callers[0].time.now_ms).replay(name, by="test")
        await at.hours(DAY_AND_MORE)
        await exporter_of(at.ledger, at.till).turn()
        await exporter_of(at.ledger, at.till).turn()
        await at.hours(1)
        await at.shadow().turn()
        assert await at.sums() == {**at.till.sums(), "cus_2": 0} == {"cus_1": 2, "cus_2": 0}


async def test_what_is_too_old_and_what_it_refuses_hold_up_nothing_and_are_counted(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill("acme", units=12)
        await at.hours(METER_AGE_MAX_MS // HOUR_MS + 48)
        await at.bill("acme", units=14)
        await at.bill("beta", units=13)
        await at.using(Bad(at, lambda one: Refused("no", status=400) if one.units == 4 else None))
        await at.shadow().turn()
        assert await at.sums() == {"cus_1": 0, "cus_2": 3}
        assert await at.book().counts() == {"told": 1, "refused": 1, "too_old": 1, "passed": 0}


async def test_another_account_is_told_from_the_beginning(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.hours(1)
        await at.shadow().turn()
        assert len(at.accepted()) == 2
        await at.ledger.client.hset(at.ledger.keys.shared("shadow", 0), "account", "acct_of_before")
        before = await at.shadows().known("cus_1")
        await at.hours(DAY_AND_MORE)
        await at.shadow().turn()
        assert await at.shadows().known("cus_1") != before
        assert await at.sums() == at.till.sums()


FAULTS: Final = ("error_before", "timeout_after", "error_after", "html", "reset_after", "rate_limit", "conflict")


async def test_both_accounts_end_with_the_same_and_the_first_is_asked_the_same_as_without_a_shadow(
    store: StoreServer,
) -> None:
    """While everything goes wrong with the second: no answers, lost ones, a worker that dies between two windows."""
    with_one = await story(store.url, shadowed=True)
    store.say("FLUSHALL")
    assert with_one == await story(store.url, shadowed=False)
    assert len(with_one) == 2 * len(FAULTS)


async def story(url: str, *, shadowed: bool) -> list[tuple[Any, ...]]:
    """What the first account was asked."""
    async with scene(url) as at, a_world(at.world.now[0]) as first:
        gateway = Counted("sk_test_first", clock=at.clock, api_base=first.url)
        gateway.calls, at.till = [], gateway  # type: ignore[assignment]
        await first.meter("scans_over")
        payers = [await first.customer(None) for _ in range(2)]
        for org_id, customer in zip(("acme", "beta"), payers, strict=True):
            await customer_of(at.ledger, org_id, customer)
        for kind in FAULTS:
            await at.bill(units=11)
            first.now[0] = at.world.now[0]
            if shadowed:
                await at.world.say("POST", "/sandbox/faults", kind=kind, path=METER)
                await trouble(at)
        if shadowed:
            await at.hours(1)
            await at.shadow().turn()
            there = [await at.shadows().known(customer) for customer in payers]
            assert [units_of(at.world)[one] for one in there] == [units_of(first)[one] for one in payers] == [67, 67]
        await gateway.close()
        return gateway.calls


async def trouble(at: Scene) -> None:
    """A turn that meets a fault, one that dies after its first window, and one more."""
    told: list[str] = []

    def dies(one: MeterEvent) -> BaseException | None:
        told.append(one.identifier)
        return Crash() if len(told) > 1 else None

    for ends in (lambda _: None, dies, lambda _: None):
        await at.using(Bad(at, ends))
        with suppress(Crash):
            await at.shadow().turn()


def units_of(world: World) -> Counter[str]:
    """Units by customer."""
    found: Counter[str] = Counter()
    for row in world.rows("sandbox.accepted"):
        found[row["customer"]] += row["value"]
    return found
