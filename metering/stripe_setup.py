"""What `metering stripe setup` and `doctor` do. Every failure is an AccessError with its cure."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from metering.billing.checkup import Patient, account_checks, clock_check, named_prices, plan_checks, webhook_checks
from metering.billing.errors import GatewayError
from metering.billing.gateway import Gateway
from metering.billing.gateways.live import API_VERSION
from metering.billing.setup import Done, SetupPlan, carry_out, look, plan_of
from metering.billing.wanted import Passed, Wanted, destination, endpoint, portal, wanted_of
from metering.billing.wiring import variables_of
from metering.clock import Clock
from metering.settings import Settings, SettingsError
from metering.store.gate import Check
from metering.store_access import AccessError
from metering.stripe_tasks import failed, stripe_of
from plans.catalogue import Catalogue, CatalogueError, parse

WEBHOOK_PATH: Final = "/webhooks/stripe"

NO_ADDRESS: Final = "webhooks"
"""What the plan calls that no address was given."""

_AGAIN: Final = "What was made stays: run it again."


@dataclass(frozen=True, slots=True)
class Setting:
    """A set-up that is planned and can be carried out. `stripe` is open as long as the block runs that gave it."""

    stripe: Gateway
    plan: SetupPlan

    async def carry_out(self) -> AsyncIterator[Done]:
        """Take the steps of the plan."""
        try:
            async for done in carry_out(self.stripe, self.plan):
                yield done
        except GatewayError as error:
            raise failed(error, _AGAIN) from error


@asynccontextmanager
async def planned(settings: Settings, clock: Clock, url: str | None) -> AsyncIterator[Setting]:
    """What a set-up would do; `url` is the service's address as Stripe reaches it, None: no events are asked for."""
    async with stripe_of(settings, clock) as stripe:
        wanted = list(wishes(settings, url))
        try:
            found = await look(stripe, wanted)
        except GatewayError as error:
            raise failed(error, "Nothing was changed.") from error
        yield Setting(stripe, plan_of(wanted, found, moves=bool(settings.stripe_api_base)))


async def examine_stripe(settings: Settings, clock: Clock, url: str | None) -> list[Check]:
    """Every check of Stripe. Changes nothing."""
    catalogue = _catalogue(settings)
    patient = Patient(settings.stripe_mode(), catalogue, variables_of(settings), len(settings.webhook_secrets()))
    async with stripe_of(settings, clock) as stripe:
        checks = await account_checks(stripe, patient)
        if not checks[0].ok:
            return checks
        wanted = [one for one in wishes(settings, url) if one.name != NO_ADDRESS]
        try:
            plan = plan_of(wanted, await look(stripe, wanted))
            # A sandbox lives by the data set's test clock, and says so in its answers.
            checks += [] if settings.test_clock else [clock_check(stripe.stripe_ms(), clock.now_ms())]
            checks += plan_checks(plan)
            checks += await named_prices(stripe, patient)
            checks += webhook_checks(await stripe.webhook_endpoints(), patient, url)
        except GatewayError as error:
            raise failed(error, "Run it again.") from error
    return checks


def wishes(settings: Settings, url: str | None) -> Sequence[Wanted | Passed]:
    """All that has to be at Stripe for the catalogue in force, and for a service at `url`."""
    wanted: list[Wanted | Passed] = [*wanted_of(_catalogue(settings), variables_of(settings)), portal()]
    if url is None:
        return [*wanted, Passed(NO_ADDRESS, "no address was given (--url): Stripe tells nobody what happens")]
    return [*wanted, endpoint(url, API_VERSION), destination(url)]


def webhook_url(text: str) -> str:
    """The address of the webhook route: a service's address may stand for it. Raises AccessError."""
    if not text.startswith(("https://", "http://")):
        raise AccessError(
            f"{text} is no address", f"Give the service's own: --url https://metering.example{WEBHOOK_PATH}"
        )
    host, _, path = text.partition("://")[2].partition("/")
    return text if path else f"{text.partition('://')[0]}://{host}{WEBHOOK_PATH}"


def _catalogue(settings: Settings) -> Catalogue:
    try:
        return parse(*settings.plans_text())
    except (SettingsError, CatalogueError) as error:
        raise AccessError(str(error), "`metering plans check FILE` says more.") from error
