"""Credits are bought by themselves: once a trigger, within the caps, until something needs a person."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from metering.billing.errors import Declined
from metering.billing.topups import KEY_MS
from metering.errors import Problem
from metering.payment_errors import NoPayer, PackageUnknown
from metering.store.topups import LOOK_MS
from tests.billing.topping import Shelf, wanting
from tests.lua.crediting import ANN, joined, spend
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, lawful, move_to
from tests.lua.topping import PRICE, RULE, low
from tests.support.card_till import CardTill
from tests.support.servers import StoreServer
from tests.support.till import broken, busy, lost


async def pass_by(ledger: Ledger, ms: int) -> None:
    """Let time pass."""
    await move_to(ledger, await ledger.now_ms() + ms)


async def test_who_runs_low_has_a_package_more_and_paid_for_one(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        assert (await shelf.balance(), till.taken()) == (510, [PRICE])
        (intent,) = till.intents
        assert (intent["customer"], intent["metadata"]["org_id"]) == ("cus_1", "acme")
        (params,) = till.asked.values()
        assert (params["off_session"], params["confirm"], params["payment_method"]) == (True, True, "pm_1")
        for _ in range(3):
            await pass_by(ledger, LOOK_MS)
            await shelf.top_up.turn()
        assert (await shelf.balance(), till.taken()) == (510, [PRICE])
        await lawful(ledger)


async def test_row_24_many_workers_charge_once_and_no_more_than_the_caps_allow(store: StoreServer) -> None:
    """Red when the attempt is written down after Stripe was called, or not at all: each worker would charge."""
    async with calm(store.url, callers=2) as ledger:
        till = await wanting(ledger, per_day=2)
        for turn in range(4):
            await asyncio.gather(*(Shelf(ledger, till).top_up.turn() for _ in range(6)))
            assert till.taken() == [PRICE] * min(turn + 1, 2)
            await ledger.client.hset(ledger.keys.pool("acme"), "low", 10**6)  # whatever comes in is not enough
            await ledger.client.zadd(ledger.keys.shared("topups", ledger.keys.partition("acme")), {"acme": 1})
            await pass_by(ledger, HOUR_MS)
        assert await Shelf(ledger, till).balance() == 10 + 2 * 500


@pytest.mark.parametrize(
    ("code", "why"), [("card_declined", "declined"), ("authentication_required", "authentication-required")]
)
async def test_what_needs_a_person_stops_it_and_is_told(store: StoreServer, code: str, why: str) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes = code
        shelf = Shelf(ledger, till)
        for _ in range(3):
            await shelf.top_up.turn()
            await pass_by(ledger, DAY_MS)
        assert (till.statuses(), till.taken(), await shelf.balance()) == (["canceled"], [], 10)
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, kept.stopped.detail, kept.attempt) == (why, code, None)
        till.becomes = "succeeded"
        await shelf.book.set("acme", RULE, "cus_1", ANN)
        await shelf.top_up.turn()
        assert (till.taken(), await shelf.balance()) == ([PRICE], 510)


async def test_a_payment_that_waits_for_its_holder_is_withdrawn(store: StoreServer) -> None:
    """Red when it is left open: paid by hand a month later it would be outside of the caps."""
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes = "processing"
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        till.intents[0]["status"] = "requires_action"
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, till.statuses()) == ("authentication-required", ["canceled"])


@pytest.mark.parametrize("fault", [lost(), broken()], ids=["lost", "broken"])
async def test_it_stops_once_its_payment_is_withdrawn_whatever_becomes_of_that_call(
    store: StoreServer, fault: object
) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes, till.faults = "card_declined", [None, fault]  # type: ignore[list-item]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        assert (await shelf.kept()).attempt is not None
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.detail, kept.attempt, till.statuses()) == ("card_declined", None, ["canceled"])


async def test_a_declined_payment_that_is_paid_before_it_is_withdrawn_brings_its_credits(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes, till.faults = "card_declined", [None, broken()]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        till.arrive(was="requires_payment_method")
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert (till.taken(), await shelf.balance(), kept.attempt, kept.stopped) == ([PRICE], 510, None, None)


async def test_what_was_paid_while_it_was_withdrawn_brings_its_credits(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes = "card_declined"
        till.on_cancel = lambda: till.arrive(was="requires_payment_method")
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert (till.taken(), await shelf.balance(), kept.stopped) == ([PRICE], 510, None)


async def test_a_decline_without_a_payment_stops_it_as_well(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults = [Declined("declined", status=402, code="card_declined")]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, kept.attempt, till.intents) == ("declined", None, [])


@pytest.mark.parametrize("fault", [lost(), broken(), busy()], ids=["lost", "broken", "busy"])
async def test_an_outcome_that_nobody_knows_is_found_out_and_charged_once(store: StoreServer, fault: object) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults = [fault]  # type: ignore[list-item]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        assert (await shelf.balance(), (await shelf.kept()).attempt is None) == (10, False)
        await shelf.top_up.turn()
        await pass_by(ledger, LOOK_MS + 30_000)
        await asyncio.gather(*(Shelf(ledger, till).top_up.turn() for _ in range(3)))
        assert (till.taken(), await shelf.balance(), len(till.answers)) == ([PRICE], 510, 1)
        assert (await shelf.kept()).attempt is None


async def test_an_attempt_that_no_list_shows_yet_is_the_same_payment_when_it_is_repeated(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults, till.unlisted = [lost()], True
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        assert (till.taken(), await shelf.balance(), (await shelf.kept()).attempt) == ([PRICE], 510, None)


async def test_what_stripe_never_heard_of_is_given_up_once_its_key_may_be_forgotten(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults = [broken()]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        await pass_by(ledger, KEY_MS + 60_000)
        await shelf.top_up.turn()
        assert (await shelf.kept()).used(await ledger.now_ms()) == (2, PRICE)  # the first one cost nothing
        assert (till.taken(), await shelf.balance(), len(till.asked)) == ([PRICE], 510, 2)


@pytest.mark.parametrize(("status", "balance", "stopped"), [("succeeded", 510, False), ("canceled", 10, True)])
async def test_a_payment_on_its_way_is_waited_for(
    store: StoreServer, status: str, balance: int, *, stopped: bool
) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.becomes = "processing"
        shelf = Shelf(ledger, till)
        for _ in range(3):
            await shelf.top_up.turn()
            await pass_by(ledger, DAY_MS)
        assert (len(till.intents), await shelf.balance()) == (1, 10)
        till.arrive(status)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert (await shelf.balance(), kept.attempt, kept.stopped is not None) == (balance, None, stopped)


async def test_an_event_may_credit_it_before_its_worker_does(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults = [lost()]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        await shelf.shop.look(till.intents[0]["id"])
        assert await shelf.balance() == 510
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        assert (await shelf.balance(), till.taken(), (await shelf.kept()).attempt) == (510, [PRICE], None)


def _no_methods(till: CardTill) -> None:
    till.saved = []


def _deleted(till: CardTill) -> None:
    till.deleted = True


@pytest.mark.parametrize(
    ("befalls", "why"), [(_no_methods, "no-payment-method"), (_deleted, "no-payer")], ids=["no card", "deleted"]
)
async def test_without_somebody_who_can_pay_nothing_is_begun(
    store: StoreServer, befalls: Callable[[CardTill], None], why: str
) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        befalls(till)
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, kept.tries, till.asked) == (why, (), {})


async def test_a_package_that_is_no_longer_sold_and_a_dispute_stop_it(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger, package=501)
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert kept.stopped.why == "package-unknown"
        await shelf.book.set("acme", RULE, "cus_1", ANN)
        await shelf.credits.freeze("acme", "cg_1", ANN, ticket=1)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, till.asked) == ("disputed", {})


async def test_a_dispute_over_credits_that_are_spent_stops_it_as_well(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        shelf = Shelf(ledger, till)
        await spend(ledger, 10)
        await shelf.credits.freeze("acme", "cg_1", ANN, ticket=1)
        await shelf.top_up.turn()
        kept = await shelf.kept()
        assert kept.stopped is not None
        assert (kept.stopped.why, till.asked) == ("disputed", {})


async def test_an_attempt_that_stripe_never_heard_of_is_not_made_once_nobody_wants_it(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.faults = [broken()]
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        await shelf.book.set("acme", replace(RULE, enabled=False), "cus_1", ANN)
        await pass_by(ledger, LOOK_MS + 30_000)
        await shelf.top_up.turn()
        assert (till.taken(), (await shelf.kept()).attempt is None) == ([], False)
        await pass_by(ledger, KEY_MS)
        await shelf.top_up.turn()
        assert (till.taken(), (await shelf.kept()).attempt) == ([], None)


async def test_it_is_turned_off_whatever_stripe_says_and_sells(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()
        till.intents.clear()  # Stripe knows nothing of the payment that would say who pays
        org = await shelf.orgs.present("acme")
        assert org is not None
        await shelf.top_up.set(org, replace(RULE, enabled=False, package=7), 60, ANN)
        kept = await shelf.kept()
        assert (kept.rule.enabled, kept.customer) == (False, "cus_1")


async def test_while_stripe_answers_nobody_one_call_finds_it_out(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        for name in ("beta", "gamma"):
            await low(ledger, org_id=name)
        till.faults = [broken(), broken(), broken()]
        await Shelf(ledger, till).top_up.turn()
        assert len(till.asked) == 1


async def test_while_its_sums_do_not_hold_nothing_is_charged(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        frozen = ledger.keys.shared("frozen", ledger.keys.partition("acme"))
        await ledger.client.zadd(frozen, {"acme": 1})
        await Shelf(ledger, till).top_up.turn()
        assert till.asked == {}
        await ledger.client.zrem(frozen, "acme")
        await Shelf(ledger, till).top_up.turn()
        assert till.taken() == [PRICE]


async def test_the_card_of_invoices_pays_before_the_one_saved_last(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        till.saved, till.chosen = ["pm_new", "pm_invoices"], "pm_invoices"
        await Shelf(ledger, till).top_up.turn()
        assert [params["payment_method"] for params in till.asked.values()] == ["pm_invoices"]


async def test_who_pays_is_the_subscriptions_customer_or_whoever_bought_last(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        till = await wanting(ledger)
        shelf = Shelf(ledger, till)
        await shelf.top_up.turn()  # a payment of cus_1 for credits
        await ledger.client.hset(ledger.keys.topup("acme"), "customer", "p.cus_old")
        org = await shelf.orgs.present("acme")
        assert org is not None
        await shelf.top_up.set(org, RULE, 60, ANN)
        assert ((await shelf.kept()).customer, (await shelf.credits.balance("acme")).low_mark) == ("cus_1", 60)


@pytest.mark.parametrize(("package", "refusal"), [(500, NoPayer), (7, PackageUnknown)])
async def test_what_cannot_be_carried_out_is_not_set(store: StoreServer, package: int, refusal: type[Problem]) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        shelf = Shelf(ledger, CardTill(ledger.now_ms))
        org = await shelf.orgs.present("acme")
        assert org is not None
        before = await ledger.dump()
        rule = type(RULE)(RULE.enabled, package, RULE.per_day, RULE.per_month, RULE.cooldown_ms)
        with pytest.raises(refusal):
            await shelf.top_up.set(org, rule, 60, ANN)
        assert await ledger.dump() == before
