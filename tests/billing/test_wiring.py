"""Billing as the service puts it together: nothing is asked of Stripe without a key, and overage goes out with one."""

from contextlib import AsyncExitStack

import pytest
from pydantic import SecretStr

from metering.billing.errors import Barred
from metering.billing.wiring import Ground, exporter_of, open_billing, pruner_of
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from tests.lua.exporting import SOLD, Trusting, always_drained, till_of
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import CUSTOMER, customer_of
from tests.lua.scenes import DAY_MS, calm, event, lawful, move_to
from tests.support.scripted import scripted
from tests.support.servers import StoreServer


def ground_of(ledger: Ledger, settings: Settings) -> Ground:
    """What billing stands on in a test."""
    return Ground(
        settings, ledger.catalogue, ledger.client, ledger.keys, ledger.callers[0].time, FieldCodec(), SystemClock(),
        SECRET, "ds_1", always_drained, fake=False,
    )  # fmt: skip


def customers_of(ledger: Ledger) -> Customers:
    return Customers(ledger.client, ledger.keys, FieldCodec(), SECRET)


async def jobs_of(ledger: Ledger, settings: Settings) -> dict[str, float]:
    """The jobs of billing, and how often each is done."""
    async with AsyncExitStack() as stack:
        orgs = ledger.callers[0].orgs
        billing = open_billing(stack, ground_of(ledger, settings), orgs, customers_of(ledger))
        return {job.name: job.every_s for job in billing.jobs}


async def test_overage_goes_out_only_where_there_is_a_key_and_as_often_as_is_set(store: StoreServer) -> None:
    async with calm(store.url, catalogue=SOLD) as ledger:
        assert await jobs_of(ledger, Settings()) == {}
        settings = Settings(stripe_secret_key=SecretStr("sk_test_wiring"), overage_push_s=7.0)
        jobs = await jobs_of(ledger, settings)
        assert {"overage": 7.0, "unbilled": 600.0, "final periods": 3600.0, "pruning": 600.0}.items() <= jobs.items()


async def test_row_7_a_stripe_that_was_away_is_asked_whether_it_is_back_and_one_that_answers_is_not(
    store: StoreServer,
) -> None:
    async with calm(store.url, catalogue=SOLD) as ledger, scripted() as stripe, AsyncExitStack() as stack:
        settings = Settings(stripe_secret_key=SecretStr("sk_test_wiring"), stripe_api_base=stripe.url)
        ground = ground_of(ledger, settings)
        billing = open_billing(stack, ground, ledger.callers[0].orgs, customers_of(ledger))
        jobs = {job.name: job for job in billing.jobs}
        await jobs["stripe's return"].turn()
        assert (billing.stripe_answers(), stripe.requests) == (True, [])
        stripe.refuse(401, message="Invalid API Key")
        with pytest.raises(Barred):
            await jobs["stripe catch-up"].turn()
        await jobs["stripe's return"].turn()
        assert not billing.stripe_answers()
        stripe.plays.clear()
        stripe.answer({"id": "acct_1"})
        await jobs["stripe's return"].turn()
        assert billing.stripe_answers()


async def test_the_exporter_as_wired_bills_overage_once(store: StoreServer) -> None:
    async with calm(store.url, catalogue=SOLD) as ledger:
        await customer_of(ledger)
        await ledger.callers[0].counters.track(event("acme", 13))
        till = till_of(ledger)
        for _ in range(2):
            await exporter_of(
                ground_of(ledger, Settings()), till, ledger.callers[0].orgs, customers_of(ledger), Trusting()
            ).turn()
        assert till.sums() == {CUSTOMER: 3}


@pytest.mark.parametrize(("days", "kept"), [(89, 1), (90, 0)])
async def test_windows_go_after_the_days_that_are_set_once_their_period_is_final(
    store: StoreServer, days: int, kept: int
) -> None:
    async with calm(store.url, catalogue=SOLD, partitions=1) as ledger:
        ground = ground_of(ledger, Settings(overage_window_days=90))
        await customer_of(ledger)
        outcome = await ledger.callers[0].counters.track(event("acme", 13))
        exporter = exporter_of(ground, till_of(ledger), ledger.callers[0].orgs, customers_of(ledger), Trusting())
        await exporter.turn()
        settled_ms = await ledger.now_ms()
        await move_to(ledger, settled_ms + days * DAY_MS + 1)
        await ledger.callers[0].orgs.get("acme")
        await ledger.client.hset(ledger.keys.archive("acme", outcome.period.start_ms), "iv", 7)
        await pruner_of(ground, exporter).turn()
        assert len([key async for key in ledger.client.scan_iter(match="*:b:*")]) == kept
        await lawful(ledger)
