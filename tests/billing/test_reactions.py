"""Each event and what it does; those named `row_` are naive mistakes that a billing integration can make."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from metering.erasure_errors import OrgErased
from metering.store.fields import FieldCodec
from metering.store.orgs import OrgChange
from metering.store.shared import read_shared
from plans.limits import OnLimit, Rule
from plans.periods import Period
from tests.billing.account import Account, base_price, checkout, event, invoice, item, overage_price, subscription
from tests.billing.rig import GRACE_DAYS, Rig, rigged
from tests.lua.erasing import erased
from tests.lua.scenes import DAY_MS, HOUR_MS, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.stripe_objects import rows, whole

FOREIGN: Final = whole("price", id="price_x", lookup_key=None)
"""The price of another product."""


async def span(rig: Rig, start: str, end: str) -> Period:
    """A period of next year."""
    return Period(await next_year(rig.ledger, start), await next_year(rig.ledger, end))


async def january(rig: Rig) -> Period:
    """An item that began on the 17th of January, half a minute ago."""
    period = await span(rig, "01-17T10:20:00", "02-17T10:20:00")
    await move_to(rig.ledger, period.start_ms + 30_000)
    return period


async def subscribed(rig: Rig, **other: Any) -> Period:
    """Acme, with a subscription since the 17th."""
    await rig.track(1)
    period = await january(rig)
    rig.account.put(subscription(period, **other))
    await rig.reactions.react(event("customer.subscription.created", "sub_1"))
    return period


# ── subscriptions ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_subscription_sets_plan_limits_period_status_and_customer(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        org = await rig.org()
        sold = org.profile.subscription
        assert (org.plan, org.features["scans"].rule) == ("pro", Rule(40, OnLimit.OVERAGE, credits=2))
        assert org.period.end_ms == period.end_ms
        assert sold is not None
        assert (sold.id, sold.status, sold.plan, sold.period) == ("sub_1", "active", "pro", period)
        assert org.profile.stripe_customer_id == "cus_1"
        assert rig.told.linked == ["acme"]
        await lawful(rig.ledger)


@pytest.mark.parametrize(
    ("status", "plan"),
    [
        ("active", "pro"), ("trialing", "pro"), ("past_due", "pro"), ("unpaid", "free"), ("paused", "free"),
        ("canceled", "free"),
    ],
)  # fmt: skip
async def test_a_status_grants_the_plan_or_the_default_one(store: StoreServer, status: str, plan: str) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        rig.account.change("sub_1", status=status)
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        org = await rig.org()
        assert org.plan == plan
        assert org.profile.subscription is not None
        assert org.profile.subscription.status == status
        await lawful(rig.ledger)


async def test_when_it_stops_and_when_it_was_tried_out_are_kept_as_stripe_says(
    store: StoreServer,
) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        end_s = period.end_ms // 1000
        for stops_s, trial_s in ((end_s, end_s - 1), (None, None)):
            rig.account.change("sub_1", cancel_at=stops_s, trial_end=trial_s)
            await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
            sold = (await rig.org()).profile.subscription
            assert sold is not None
            told = None if stops_s is None else (period.end_ms, period.end_ms - 1000)
            assert (sold.stops_ms, sold.trial_end_ms) == (told or (None, None))
            assert sold.metered == {"scans"}


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired"])
async def test_a_subscription_that_was_never_paid_changes_nothing(store: StoreServer, status: str) -> None:
    async with rigged(store.url) as rig:
        await rig.track(3)
        before = await rig.state()
        rig.account.put(subscription(await january(rig), status=status))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        assert await rig.state() == before


@pytest.mark.parametrize("case", ["no price of ours", "no organisation", "an unknown organisation", "no valid name"])
async def test_objects_of_others_are_ignored(store: StoreServer, case: str) -> None:
    async with rigged(store.url) as rig:
        await rig.track(3)
        period = await january(rig)
        before = await rig.ledger.dump()
        org = {"no organisation": "", "an unknown organisation": "nobody", "no valid name": "{p00}:x"}.get(case, "acme")
        other: dict[str, Any] = {"items": rows(item(FOREIGN, period))} if case == "no price of ours" else {}
        rig.account.put(subscription(period, org=org, **other))
        rig.account.put(invoice("in_1", period, status="paid"))
        rig.account.put(invoice("in_2", period, status="open", parent=None))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        for name in ("in_1", "in_2", "in_gone"):
            await rig.reactions.react(event("invoice.payment_failed", name))
        assert await rig.ledger.dump() == before


async def test_a_subscription_that_begins_after_its_organisation_was_erased_is_told_until_it_ends(
    store: StoreServer,
) -> None:
    """A checkout that was open may be paid late: nothing is made anew, and nobody pays for nothing unseen."""
    async with rigged(store.url) as rig:
        await rig.track(3)
        period = await january(rig)
        await erased(rig.ledger)
        before = await rig.ledger.dump()
        rig.account.put(subscription(period))
        rig.account.put(invoice("in_1", period, status="paid"))
        rig.account.put(checkout())
        told = [
            event("customer.subscription.created", "sub_1"),
            event("invoice.paid", "in_1"),
            event("checkout.session.completed", "cs_1"),
        ]
        for one in told:
            with pytest.raises(OrgErased):
                await rig.reactions.react(one)
        rig.account.change("sub_1", status="canceled")
        for one in (*told, event("customer.subscription.deleted", "sub_1")):
            assert await rig.reactions.react(one) is False
        assert await rig.ledger.dump() == before


async def test_a_plan_that_people_set_stays_until_stripe_says_something_new(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        await rig.ledger.callers[0].orgs.update("acme", OrgChange(plan="team"), actor="ann", create=False)
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        assert (await rig.org()).plan == "team"
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        assert (await rig.org()).plan == "free"


@pytest.mark.parametrize("created_s", [1, 9_999_999_999], ids=["older", "newer"])
async def test_a_subscription_that_is_not_the_current_one_downgrades_nobody(store: StoreServer, created_s: int) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.put(subscription(period, name="sub_0", status="canceled", created=created_s))
        await rig.reactions.react(event("customer.subscription.deleted", "sub_0"))
        org = await rig.org()
        assert org.plan == "pro"
        assert org.profile.subscription is not None
        assert org.profile.subscription.id == "sub_1"


async def test_a_price_that_is_not_known_any_more_takes_no_plan_away(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.change("sub_1", items=rows(item(FOREIGN, period)))
        for status, plan in (("past_due", "pro"), ("canceled", "free")):
            rig.account.change("sub_1", status=status)
            await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
            assert (await rig.org()).plan == plan


async def test_an_ended_subscription_of_another_customer_takes_no_plan_away(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        await link(rig, "cus_2")
        rig.account.put(subscription(period, name="sub_2", customer="cus_2", status="canceled"))
        await rig.reactions.react(event("customer.subscription.deleted", "sub_2"))
        assert (await rig.org()).plan == "pro"


async def test_two_organisations_of_one_customer_have_each_what_names_them(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await january(rig)
        for org_id, name, plan in (("acme", "sub_1", "pro"), ("beta", "sub_2", "team")):
            await rig.track(1, org_id=org_id)
            rig.account.put(subscription(period, name=name, org=org_id, plan=plan))
        for name in ("sub_2", "sub_1", "sub_2"):
            await rig.reactions.react(event("customer.subscription.updated", name))
        assert [(await rig.org(name)).plan for name in ("acme", "beta")] == ["pro", "team"]
        rig.account.put(subscription(period, name="sub_3", org="", plan="team"))
        await rig.reactions.react(event("customer.subscription.created", "sub_3"))
        assert [(await rig.org(name)).plan for name in ("acme", "beta")] == ["pro", "team"]
        await lawful(rig.ledger)


async def test_a_customer_that_people_set_is_known_by_its_subscriptions(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        rig.account.put(subscription(await january(rig), org=""))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        assert (await rig.org()).plan == "free"
        await link(rig, "cus_1")
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        assert (await rig.org()).plan == "pro"


async def link(rig: Rig, customer: str) -> None:
    """Give acme a customer, as a person would."""
    await rig.orgs.update("acme", OrgChange(stripe_customer_id=customer), actor="ann", create=False)


async def test_another_customers_subscription_does_not_take_an_organisation_over(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        await link(rig, "cus_9")
        rig.account.put(subscription(await january(rig)))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        org = await rig.org()
        assert (org.plan, org.profile.stripe_customer_id) == ("free", "cus_9")


# ── row 9: periods ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("start", "end", "following"),
    [
        ("01-17T10:20:00", "02-17T10:20:00", "03-17T10:20:00"),
        ("01-31T10:20:00", "02-28T10:20:00", "03-31T10:20:00"),
        ("04-30T10:20:00", "05-30T10:20:00", "06-30T10:20:00"),
    ],
    ids=["the 17th", "the 31st", "the 30th"],
)
async def test_row_9_the_counter_starts_again_with_the_items_period(
    store: StoreServer, start: str, end: str, following: str
) -> None:
    async with rigged(store.url, at=f"{start[:-3]}:30") as rig:
        await rig.ledger.callers[0].orgs.update("acme", OrgChange(plan="free"), actor="ann", create=True)
        period = await span(rig, start, end)
        assert "current_period_end" not in rig.account.put(subscription(period))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        assert (await rig.org()).period == period
        await rig.track(12)
        await move_to(rig.ledger, period.end_ms - 1_000)
        assert (await rig.org()).features["scans"].used == 12
        await move_to(rig.ledger, period.end_ms)
        org = await rig.org()
        assert (org.features["scans"].used, org.period) == (0, await span(rig, end, following))
        await lawful(rig.ledger)


async def test_row_9_of_mixed_intervals_the_one_of_the_metered_item_counts(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        month = await january(rig)
        year = Period(month.start_ms, month.start_ms + 365 * DAY_MS)
        items = rows(item(base_price("pro"), year), item(overage_price(), month))
        rig.account.put(subscription(month, items=items))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        assert (await rig.org()).period.end_ms == month.end_ms


async def test_row_9_a_second_subscription_after_a_cancel_has_its_own_anchor(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        first = await subscribed(rig)
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        assert (await rig.org()).period.end_ms == first.end_ms
        second = await span(rig, "01-25T08:00:00", "02-25T08:00:00")
        await move_to(rig.ledger, second.start_ms + 5_000)
        rig.account.put(subscription(second, name="sub_2"))
        await rig.reactions.react(event("customer.subscription.created", "sub_2"))
        org = await rig.org()
        assert (org.plan, org.period) == ("pro", second)
        assert org.profile.subscription is not None
        assert org.profile.subscription.id == "sub_2"
        await lawful(rig.ledger)


@pytest.mark.parametrize("beside", ["another", "one that ended", "that of another organisation", "another product"])
async def test_who_pays_for_two_plans_at_once_is_told_and_nobody_else(store: StoreServer, beside: str) -> None:
    """Two pages of a checkout that were both paid: Stripe renews both for ever."""
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        cases: dict[str, dict[str, Any]] = {
            "another": {},
            "one that ended": {"status": "canceled"},
            "that of another organisation": {"org": "beta"},
            "another product": {"items": rows(item(FOREIGN, period))},
        }
        rig.account.put(subscription(period, name="sub_2", **cases[beside]))
        with capture_logs() as logs:
            await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        alarms = [log["subscriptions"] for log in logs if log["log_level"] == "error"]
        entry = await rig.latest()
        double = beside == "another"
        assert (entry.get("subscriptions_paid"), alarms) == (("2", [["sub_2", "sub_1"]]) if double else (None, []))


# ── rows 11 and 12: changes and ends ─────────────────────────────────────────────────────────────────────


async def test_row_11_a_plan_change_neither_resets_the_counter_nor_grants_the_quota_twice(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        await rig.track(45)
        before = await rig.org()
        for plan, units, limit, overage in (("team", 10, 100, 5), ("pro", 3, 40, 8), ("team", 1, 100, 8)):
            rig.account.put(subscription(period, plan=plan))
            await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
            await rig.track(units)
            org = await rig.org()
            usage = org.features["scans"]
            assert (org.plan, usage.rule.limit, usage.overage) == (plan, limit, overage)
            assert org.period == before.period
        assert (await rig.org()).features["scans"].used == before.features["scans"].used + 14
        await lawful(rig.ledger)


async def test_row_12_usage_before_a_cancel_is_pushed_while_its_invoice_is_a_draft(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        await rig.track(45)
        start_ms = (await rig.org()).period.start_ms
        rig.account.put(invoice("in_1", period, status="draft", billing_reason="manual"))
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("invoice.created", "in_1"))
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        assert rig.told.flushed == [("acme", start_ms)]
        org = await rig.org()
        assert (org.plan, org.features["scans"].overage) == ("free", 5)
        await lawful(rig.ledger)


async def test_row_12_a_subscription_that_ends_with_its_period_is_followed_by_our_own(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig, cancel_at_period_end=True)
        await move_to(rig.ledger, period.end_ms + 5_000)
        assert (await rig.org()).period.start_ms == period.end_ms
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        org = await rig.org()
        assert (org.plan, org.period.start_ms) == ("free", period.end_ms)
        await lawful(rig.ledger)


# ── row 17: payloads are not believed ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("late", ["customer.subscription.updated", "customer.subscription.created"])
async def test_row_17_an_update_that_comes_after_the_deletion_does_not_upgrade(store: StoreServer, late: str) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        after = await rig.state()
        await rig.reactions.react(event(late, "sub_1"))
        assert (await rig.org()).plan == "free"
        assert await rig.state() == after


async def test_row_17_a_creation_that_comes_after_the_update_does_not_regress(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await january(rig)
        await rig.track(1)
        rig.account.put(subscription(period, plan="team"))
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        await rig.reactions.react(event("customer.subscription.created", "sub_1"))
        assert (await rig.org()).plan == "team"


async def test_row_17_the_newest_reading_wins_whoever_writes_last(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        slow, held, go = Account(), asyncio.Event(), asyncio.Event()
        slow.objects = rig.account.objects

        async def wait() -> None:
            if slow.calls[-1].startswith("subscriptions"):
                held.set()
                await go.wait()

        slow.after = wait
        old = asyncio.create_task(rig.worker(1, account=slow).react(event("customer.subscription.updated", "sub_1")))
        await held.wait()
        rig.account.put(subscription(period, plan="team"))
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        go.set()
        await old
        assert (await rig.org()).plan == "team"
        assert (await rig.trail())["customer.subscription.updated"] == 2
        await lawful(rig.ledger)


async def test_row_28_a_failure_that_was_read_before_the_payment_and_written_after_it_begins_nothing(
    store: StoreServer,
) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        slow, held, go = Account(), asyncio.Event(), asyncio.Event()
        slow.objects = rig.account.objects
        rig.account.put(invoice("in_1", period))

        async def wait() -> None:
            if slow.calls[-1] == "in_1":
                held.set()
                await go.wait()

        slow.after = wait
        failed = event("invoice.payment_failed", "in_1", at_ms=period.start_ms)
        late = asyncio.create_task(rig.worker(1, account=slow).react(failed))
        await held.wait()
        rig.account.change("in_1", status="paid")
        await rig.reactions.react(event("invoice.paid", "in_1", at_ms=period.start_ms + 1_000))
        go.set()
        await late
        assert (await rig.org()).profile.grace_end_ms is None


# ── row 16: once ─────────────────────────────────────────────────────────────────────────────────────────


async def test_row_16_twenty_parallel_deliveries_of_one_event_have_one_effect(store: StoreServer) -> None:
    async with rigged(store.url, callers=20) as rig:
        await rig.track(1)
        rig.account.put(subscription(await january(rig)))
        one = event("customer.subscription.created", "sub_1")
        await asyncio.gather(*(rig.worker(number).react(one) for number in range(20)))
        trail = await rig.trail()
        assert (trail["customer.subscription.created"], trail["plan_changed"], trail["period_closed"]) == (1, 1, 1)
        assert (await rig.org()).plan == "pro"
        await lawful(rig.ledger)


# ── row 21: checkout ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("session", "linked"),
    [
        (checkout(paid="paid"), True),
        (checkout(paid="no_payment_required"), True),
        (checkout(paid="unpaid"), False),
        (checkout(paid="paid", status="open"), False),
        (checkout(paid="paid", mode="payment"), False),
        (checkout(paid="paid", org="nobody"), False),
    ],
    ids=["paid", "nothing to pay", "unpaid", "not over", "for credits", "of nobody we know"],
)
async def test_row_21_a_checkout_links_its_payer_only_once_it_is_paid(
    store: StoreServer, session: dict[str, object], linked: bool
) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        rig.account.put(session)
        rig.account.put(subscription(await january(rig), org=""))
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        org = await rig.org()
        assert (org.profile.stripe_customer_id, org.plan) == (("cus_1", "pro") if linked else (None, "free"))
        await lawful(rig.ledger)


async def test_row_21_a_delayed_payment_links_when_it_has_succeeded(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        rig.account.put(checkout(paid="unpaid"))
        rig.account.put(subscription(await january(rig), org="", status="incomplete"))
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        assert (await rig.org()).plan == "free"
        rig.account.change("cs_1", payment_status="paid")
        rig.account.change("sub_1", status="active")
        await rig.reactions.react(event("checkout.session.async_payment_succeeded", "cs_1"))
        assert (await rig.org()).plan == "pro"


async def test_a_checkout_of_another_product_links_nobody(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        before = await rig.state()
        rig.account.put(checkout(metadata={}))
        rig.account.put(subscription(await january(rig), items=rows(item(FOREIGN, await january(rig)))))
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        assert await rig.state() == before
        assert not (await rig.trail())["checkout.session.completed"]


@pytest.mark.parametrize("metadata", [{}, {"org_id": "other"}], ids=["named by the payer alone", "named two ways"])
async def test_a_payer_cannot_take_an_organisation_from_who_pays_for_it(
    store: StoreServer, metadata: dict[str, str]
) -> None:
    """A payer may write any `client_reference_id` into the address of a payment link."""
    async with rigged(store.url) as rig:
        await subscribed(rig)
        rig.account.put(subscription(await january(rig), name="sub_2", plan="team", customer="cus_2", org=""))
        rig.account.put(checkout(customer="cus_2", metadata=metadata))
        before = await rig.state()
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        assert await rig.state() == before
        assert not (await rig.trail())["checkout.session.completed"]


async def test_a_checkout_that_names_its_organisation_by_the_reference_alone_gives_it_its_first_payer(
    store: StoreServer,
) -> None:
    async with rigged(store.url) as rig:
        await rig.track(1)
        rig.account.put(checkout(metadata={}))
        rig.account.put(subscription(await january(rig), org=""))
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        assert (await rig.org()).profile.stripe_customer_id == "cus_1"


async def test_a_new_customer_of_a_checkout_takes_the_place_of_the_old_one(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        rig.account.put(subscription(await january(rig), name="sub_2", plan="team", customer="cus_2"))
        rig.account.put(checkout(customer="cus_2"))
        await rig.reactions.react(event("checkout.session.completed", "cs_1"))
        org = await rig.org()
        assert (org.plan, org.profile.stripe_customer_id) == ("team", "cus_2")
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        assert (await rig.org()).plan == "team"


# ── row 28: grace ────────────────────────────────────────────────────────────────────────────────────────


async def test_row_28_a_failed_payment_begins_grace_then_overdue_and_a_payment_ends_it(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        failed_ms = await rig.ledger.now_ms()
        rig.account.put(invoice("in_1", period))
        await rig.reactions.react(event("invoice.payment_failed", "in_1", at_ms=failed_ms))
        await rig.reactions.react(event("invoice.payment_failed", "in_1", at_ms=failed_ms + DAY_MS))
        profile = (await rig.org()).profile
        assert (profile.payment_overdue, profile.grace_end_ms) == (False, failed_ms + GRACE_DAYS * DAY_MS)
        await move_to(rig.ledger, failed_ms + GRACE_DAYS * DAY_MS - 1_000)
        await rig.reactions.end_graces()
        assert not (await rig.org()).profile.payment_overdue
        await move_to(rig.ledger, failed_ms + GRACE_DAYS * DAY_MS)
        await rig.reactions.end_graces()
        await rig.reactions.end_graces()
        org = await rig.org()
        assert (org.profile.payment_overdue, org.plan) == (True, "pro")
        assert (await rig.trail())["payment_overdue"] == 1
        rig.account.change("in_1", status="paid")
        await rig.reactions.react(event("invoice.paid", "in_1", at_ms=failed_ms))
        profile = (await rig.org()).profile
        assert (profile.payment_overdue, profile.grace_end_ms) == (False, None)
        await lawful(rig.ledger)


async def test_row_28_past_due_keeps_the_plan_and_a_failure_heard_of_after_the_payment_begins_nothing(
    store: StoreServer,
) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.change("sub_1", status="past_due")
        rig.account.put(invoice("in_1", period, status="paid"))
        await rig.reactions.react(event("customer.subscription.updated", "sub_1"))
        await rig.reactions.react(event("invoice.paid", "in_1"))
        await rig.reactions.react(event("invoice.payment_failed", "in_1", at_ms=await rig.ledger.now_ms()))
        org = await rig.org()
        assert (org.plan, org.profile.grace_end_ms) == ("pro", None)


async def test_payments_of_invoices_are_counted_once_by_what_became_of_them(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.put(invoice("in_1", period))
        tried = [event("invoice.payment_failed", "in_1", at_ms=period.start_ms + n, name=f"evt_{n}") for n in (1, 2)]
        for one in (*tried, *tried):
            await rig.reactions.react(one)
        for name, paid in (("in_1", 2900), ("in_2", 0)):  # nobody pays for an invoice of nothing
            rig.account.put(invoice(name, period, status="paid", amount_paid=paid))
            for kind in ("invoice.finalized", "invoice.paid"):
                await rig.reactions.react(event(kind, name))
        totals = (await read_shared(rig.ledger.client, rig.ledger.keys, top=1)).totals
        assert totals.sales == {("payments", "invoice", "failed"): 2, ("payments", "invoice", "succeeded"): 1}
        await lawful(rig.ledger)


async def test_row_28_an_invoice_that_is_open_still_owes_nothing_by_that_alone(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.put(invoice("in_1", period))
        for kind in ("invoice.created", "invoice.finalized", "invoice.finalization_failed", "invoice.paid"):
            await rig.reactions.react(event(kind, "in_1"))
        assert (await rig.org()).profile.debts == {}


@pytest.mark.parametrize("kind", ["invoice.payment_action_required", "invoice.overdue", "invoice.marked_uncollectible"])
async def test_row_28_other_words_of_an_unpaid_invoice_begin_grace_too(store: StoreServer, kind: str) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        status = "uncollectible" if kind.endswith("uncollectible") else "open"
        rig.account.put(invoice("in_1", period, status=status))
        now_ms = await rig.ledger.now_ms()
        await rig.reactions.react(event(kind, "in_1", at_ms=now_ms))
        assert (await rig.org()).profile.grace_end_ms == now_ms + GRACE_DAYS * DAY_MS
        rig.account.change("in_1", status="void")
        await rig.reactions.react(event("invoice.voided", "in_1", at_ms=now_ms))
        assert (await rig.org()).profile.grace_end_ms is None
        await lawful(rig.ledger)


async def test_row_28_being_overdue_costs_the_plan_where_the_operator_wants_that_and_a_payment_gives_it_back(
    store: StoreServer,
) -> None:
    async with rigged(store.url, downgrades=True) as rig:
        period = await subscribed(rig)
        failed_ms = await rig.ledger.now_ms()
        rig.account.put(invoice("in_1", period))
        await rig.reactions.react(event("invoice.payment_failed", "in_1", at_ms=failed_ms))
        assert (await rig.org()).plan == "pro"
        await move_to(rig.ledger, failed_ms + GRACE_DAYS * DAY_MS)
        await rig.reactions.end_graces()
        assert (await rig.org()).plan == "free"
        rig.account.change("in_1", status="paid")
        await rig.reactions.react(event("invoice.paid", "in_1", at_ms=failed_ms))
        assert (await rig.org()).plan == "pro"
        await lawful(rig.ledger)


# ── invoices and periods ─────────────────────────────────────────────────────────────────────────────────


async def test_a_renewals_draft_closes_our_period_and_pushes_what_it_has(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        await rig.track(50)
        start_ms = (await rig.org()).period.start_ms
        await move_to(rig.ledger, period.end_ms + 5_000)
        second = await span(rig, "02-17T10:20:00", "03-17T10:20:00")
        rig.account.put(subscription(second, created=period.start_ms // 1000))
        rig.account.put(invoice("in_2", period, status="draft"))
        await rig.reactions.react(event("invoice.created", "in_2"))
        assert rig.told.flushed == [("acme", start_ms)]
        assert (await rig.org()).period == second
        await lawful(rig.ledger)


async def test_the_first_invoice_bills_no_period(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.put(invoice("in_1", period, status="draft", billing_reason="subscription_create"))
        await rig.reactions.react(event("invoice.created", "in_1"))
        assert rig.told.flushed == []


@pytest.mark.parametrize("kind", ["invoice.finalized", "invoice.paid", "invoice.payment_failed"])
async def test_a_final_invoice_freezes_the_periods_it_bills_and_no_other(store: StoreServer, kind: str) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        await rig.track(50)
        before = await rig.org()
        await move_to(rig.ledger, period.end_ms + HOUR_MS + 5_000)
        await rig.track(2)
        rig.account.put(invoice("in_2", period, status="paid" if kind == "invoice.paid" else "open"))
        await rig.reactions.react(event(kind, "in_2"))
        client, keys = rig.ledger.client, rig.ledger.keys
        frozen = await client.hget(keys.archive("acme", before.period.start_ms), "iv")
        assert int(frozen) == period.end_ms + HOUR_MS
        assert before.before is not None
        assert await client.hget(keys.archive("acme", before.before.start_ms), "iv") is None
        assert await client.hget(keys.record("acme"), "iv") is None
        await lawful(rig.ledger)


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deleted_customer_is_unlinked_and_an_old_word_of_it_links_nothing(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await subscribed(rig)
        rig.account.put(invoice("in_1", period))
        await rig.reactions.react(event("invoice.payment_failed", "in_1", at_ms=await rig.ledger.now_ms()))
        rig.account.put({"id": "cus_1", "object": "customer", "deleted": True})
        rig.account.change("sub_1", status="canceled")
        await rig.reactions.react(event("customer.deleted", "cus_1"))
        org = await rig.org()
        assert (org.plan, org.profile.stripe_customer_id, org.profile.debts) == ("free", None, {})
        after = await rig.state()
        for one in (event("customer.subscription.updated", "sub_1"), event("customer.deleted", "cus_1")):
            await rig.reactions.react(one)
            assert await rig.state() == after
        await lawful(rig.ledger)


async def test_a_customer_that_is_still_there_is_not_unlinked(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        rig.account.put(whole("customer", id="cus_1"))
        before = await rig.ledger.dump()
        await rig.reactions.react(event("customer.deleted", "cus_1"))
        assert await rig.ledger.dump() == before


async def test_what_we_do_nothing_about_is_in_the_trail_of_whom_it_is_about(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        before = await rig.state()
        told = event("charge.refunded", "ch_1", customer="cus_1")
        for one in (told, told, event("charge.refunded", "ch_2", customer="cus_9"), event("account.updated", "acct_1")):
            await rig.reactions.react(one)
        assert (await rig.trail())["charge.refunded"] == 1
        assert await rig.state() == before


async def test_the_trail_names_the_event_as_stripes_ids_are_kept(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        await subscribed(rig)
        one = event("customer.subscription.updated", "sub_1")
        await rig.reactions.react(one)
        [(_, entry)] = await rig.ledger.client.xrevrange(rig.ledger.keys.trail("acme"), count=1)
        key = (await rig.org()).profile.data_key
        name = FieldCodec().decode("acme", "event", entry[b"event"].decode(), key)
        assert (name, entry[b"actor"], entry[b"subscription"]) == (one.event_id, b"stripe", b"active")


async def test_usage_that_stripe_could_not_bill_is_told_with_its_samples(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        samples = [{"error_message": "none", "request": {"identifier": name}} for name in ("w1", "w2")]
        kinds = [
            {"code": "meter_event_customer_not_found", "error_count": 3, "sample_errors": samples},
            {"code": "timestamp_in_future", "error_count": 1, "sample_errors": []},
        ]
        data = {
            "validation_start": "2031-01-17T10:00:00.000Z",
            "validation_end": "2031-01-17T10:00:10.000Z",
            "reason": {"error_count": 4, "error_types": kinds},
        }
        related = {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}
        kind = "v1.billing.meter.error_report_triggered"
        rig.account.put(whole("v2.core.event", type=kind, id="evt_meter", related_object=related, data=data))
        thin = replace(event("billing.meter.error_report_triggered", "mtr_1", name="evt_meter"), thin=True)
        await rig.reactions.react(thin)
        [report] = rig.told.reports
        assert report.counts == {"meter_event_customer_not_found": 3, "timestamp_in_future": 1}
        assert report.samples == dict.fromkeys(["w1", "w2"], "meter_event_customer_not_found")
        assert (report.meter, report.end_ms - report.start_ms) == ("mtr_1", 10_000)
