"""What `metering stripe doctor` looks at: the key, the account, what the catalogue needs, and whether events come here.

It changes nothing. Every line that is not ok says what to do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from metering.billing.errors import Barred, GatewayError, NotThere
from metering.billing.gateway import API_VERSION, StripeObject
from metering.billing.prices import Interval, price_id_of
from metering.billing.setup import Maker, SetupPlan, Verb
from metering.billing.wanted import TAG
from metering.clock import MS_PER_S
from metering.setting_kinds import StripeMode
from metering.store.gate import Check
from plans.catalogue import Catalogue

SKEW_MAX_MS = 60_000
"""A minute of the five that Stripe takes an event's timestamp ahead of its clock, and we the age of a webhook."""

_SETUP = "Run `metering stripe setup`."


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. `secrets` is how many secrets webhooks may be signed with; `variables` may name prices."""

    mode: StripeMode
    catalogue: Catalogue
    variables: Mapping[str, str]
    secrets: int


async def account_checks(stripe: Maker, patient: Patient) -> list[Check]:
    """The key and its account. Where the key does not hold, that alone: nothing else can be asked."""
    try:
        account = await stripe.account()
    except Barred as error:
        cure = "Take a key from https://dashboard.stripe.com/apikeys that may read and write what the set-up makes."
        return [Check("key", ok=False, found=error.message or "refused", cure=cure)]
    except GatewayError as error:
        found = error.message or type(error).__name__
        return [
            Check("key", ok=False, found=f"Stripe does not answer: {found}", cure="See that it is reachable from here.")
        ]
    live = patient.mode is StripeMode.LIVE
    charges = bool(account.get("charges_enabled"))
    cure = "Finish the activation of the account in Stripe's Dashboard."
    return [
        Check("key", ok=True, found=f"{patient.mode.value}" + (": money moves" if live else ", no money moves")),
        Check("account", ok=charges or not live, found=str(account["id"]), cure=cure),
    ]


def clock_check(stripe_ms: int | None, own_ms: int) -> Check:
    """Our clock against Stripe's, as its answers told it."""
    apart_ms = abs(own_ms - (own_ms if stripe_ms is None else stripe_ms))
    cure = "Synchronise this machine's clock (NTP): Stripe refuses usage from its future, and we old webhooks."
    return Check("clock", apart_ms <= SKEW_MAX_MS, f"{apart_ms // MS_PER_S} s from Stripe's", cure)


def plan_checks(plan: SetupPlan) -> Iterator[Check]:
    """What the set-up would make or change, and what keeps it from that."""
    for step in plan.steps:
        found = {Verb.KEEP: step.id, Verb.MAKE: "missing", Verb.CHANGE: f"{step.id} differs"}[step.verb]
        yield Check(f"{step.wanted.kind} {step.wanted.name}", step.verb is Verb.KEEP, found, _SETUP)
    for one in plan.passed:
        yield Check(one.name, not one.fault, one.why, one.cure)


async def named_prices(stripe: Maker, patient: Patient) -> list[Check]:
    """The prices that the catalogue or the environment names: there, for sale, of the right currency and interval."""
    checks = []
    for plan in patient.catalogue.plans:
        for interval in Interval:
            price_id = price_id_of(plan, patient.catalogue, patient.variables, interval)
            if price_id is not None:
                checks.append(await _named_price(stripe, (plan, interval), price_id, patient.catalogue.currency))
    return checks


async def _named_price(stripe: Maker, sold: tuple[str, Interval], price_id: str, currency: str) -> Check:
    plan, interval = sold
    name = f"price of plan {plan}" + " by the year" * (interval is Interval.YEAR)
    cure = f"Name a price of this account and mode, active, by the {interval}, in the right currency."
    try:
        price = await stripe.price(price_id)
    except NotThere:
        return Check(name, ok=False, found=f"{price_id} is not there", cure=cure)
    recurring = price.get("recurring") or {}
    faults = [
        fault
        for fault, there in (
            ("is no longer for sale", not price["active"]),
            (f"is in {price['currency']}, the catalogue in {currency}", price["currency"] != currency),
            (
                f"is not by the {interval}",
                (recurring.get("interval"), recurring.get("interval_count", 1)) != (interval.value, 1),
            ),
            ("is metered", recurring.get("usage_type") == "metered"),
        )
        if there
    ]
    return Check(name, not faults, f"{price_id} {' and '.join(faults)}".strip(), cure)


def webhook_checks(endpoints: list[StripeObject], patient: Patient, url: str | None) -> Iterator[Check]:
    """Whether events come here: a secret is set, and an endpoint that was made by the set-up is on."""
    cure = "Put the secrets that `metering stripe setup` printed into STRIPE_WEBHOOK_SECRET, commas between them."
    yield Check("webhook secret", patient.secrets > 0, f"{patient.secrets} set", cure)
    if url is not None:
        return  # the plan says all of it
    ours = [one for one in endpoints if (one.get("metadata") or {}).get(TAG) == "events"]
    on = [one["url"] for one in ours if one["status"] == "enabled"]
    for one in ours:
        version = one.get("api_version") or "that of the account"
        cure = f"Make it anew with `metering stripe setup --url`: this service knows {API_VERSION}."
        if one["status"] == "enabled":
            yield Check("webhook version", version == API_VERSION, version, cure, fatal=False)
    cure = "Run `metering stripe setup --url https://...`, or look at one made by hand: `metering stripe doctor --url`."
    yield Check("webhook endpoint", bool(on), ", ".join(on) or "none of ours is on", cure)
