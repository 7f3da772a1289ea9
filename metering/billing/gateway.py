"""The verbs of Stripe that the service uses. `gateways.live` speaks them; the sandbox answers them as Stripe would.

Objects are plain dicts as Stripe's API shows them (version `API_VERSION` of the live gateway), amounts integers in
minor units, times in seconds as Stripe has them. Every verb raises the errors of `metering.billing.errors` and no
others. `key` is the Idempotency-Key: one for each thing that is to happen once
(https://docs.stripe.com/api/idempotent_requests).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

StripeObject = dict[str, Any]
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """Units for a meter: https://docs.stripe.com/api/billing/meter-event. `identifier` makes it count once."""

    event_name: str
    customer: str
    units: int
    timestamp_s: int
    identifier: str


class Meters(Protocol):
    """Usage."""

    async def send_meter_event(self, event: MeterEvent, *, attempt: int) -> None:
        """Tell a meter. Raises Duplicate where the identifier is there already: delivered too.

        The Idempotency-Key is the identifier and the attempt, as Stripe keeps the answer to a key, a 500 included.
        """
        ...

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """Units that a meter has for a customer in [start, end), both at whole minutes. Lags behind what was sent."""
        ...

    async def meters(self) -> list[StripeObject]:
        """Every meter, active or not."""
        ...

    async def create_meter(self, params: Params, *, key: str) -> StripeObject:
        """Make a meter."""
        ...


class Setup(Protocol):
    """What the catalogue needs at Stripe."""

    async def account(self) -> StripeObject:
        """The account that the key belongs to."""
        ...

    async def products(self) -> list[StripeObject]:
        """Every product."""
        ...

    async def create_product(self, params: Params, *, key: str) -> StripeObject:
        """Make a product."""
        ...

    async def price(self, price_id: str) -> StripeObject:
        """One price."""
        ...

    async def prices(self, lookup_keys: Sequence[str]) -> list[StripeObject]:
        """The active prices with these lookup keys."""
        ...

    async def create_price(self, params: Params, *, key: str) -> StripeObject:
        """Make a price."""
        ...

    async def portal_configurations(self) -> list[StripeObject]:
        """Every configuration of the portal."""
        ...

    async def create_portal_configuration(self, params: Params, *, key: str) -> StripeObject:
        """Make one."""
        ...

    async def update_portal_configuration(self, configuration_id: str, params: Params) -> StripeObject:
        """Change one."""
        ...

    async def webhook_endpoints(self) -> list[StripeObject]:
        """Every endpoint for snapshot events."""
        ...

    async def create_webhook_endpoint(self, params: Params, *, key: str) -> StripeObject:
        """Make one; its `secret` is told this once."""
        ...

    async def update_webhook_endpoint(self, endpoint_id: str, params: Params) -> StripeObject:
        """Change one."""
        ...

    async def event_destinations(self) -> list[StripeObject]:
        """Every destination of thin events."""
        ...

    async def create_event_destination(self, params: Params, *, key: str) -> StripeObject:
        """Make one; its signing secret is told this once."""
        ...


class Customers(Protocol):
    """Who pays, and what they bought."""

    async def customer(self, customer_id: str) -> StripeObject:
        """One customer; a deleted one has `deleted`."""
        ...

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        ...

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """Begin a checkout; `url` is where the payer goes."""
        ...

    async def checkout(self, session_id: str) -> StripeObject:
        """One checkout."""
        ...

    async def create_portal_session(self, params: Params, *, key: str) -> StripeObject:
        """Let a customer into the portal; `url` is where they go, soon and once."""
        ...

    async def subscription(self, subscription_id: str) -> StripeObject:
        """One subscription, its items included."""
        ...

    async def subscriptions(self, customer: str) -> list[StripeObject]:
        """All of a customer, ended ones too, the newest first."""
        ...

    async def update_subscription(self, subscription_id: str, params: Params, *, key: str) -> StripeObject:
        """Change one."""
        ...

    async def cancel_subscription(self, subscription_id: str, *, invoice_now: bool, key: str) -> StripeObject:
        """End it now. Without `invoice_now` Stripe drops usage that is not invoiced yet."""
        ...


class Invoices(Protocol):
    """What is billed."""

    async def invoice(self, invoice_id: str) -> StripeObject:
        """One invoice."""
        ...

    async def invoices(self, customer: str) -> list[StripeObject]:
        """All of a customer, the newest first."""
        ...

    async def preview_invoice(self, params: Params) -> StripeObject:
        """An invoice as it would be; nothing is kept of it."""
        ...

    async def invoice_items(self, customer: str) -> list[StripeObject]:
        """All of a customer, those on an invoice already included."""
        ...

    async def create_invoice_item(self, params: Params, *, key: str) -> StripeObject:
        """Put an amount on the next invoice."""
        ...


class InvoicePages(Protocol):
    """Invoices as people look at them."""

    async def invoice_page(
        self, *, customer: str | None, status: str | None, after: str | None, limit: int
    ) -> tuple[list[StripeObject], bool]:
        """Up to `limit` (at most 100) invoices of a customer, or of everybody, the newest first, and whether more
        follow; those after the invoice `after`, and of one status, where they are given.
        """
        ...


class Payments(Protocol):
    """What is paid once, and given back."""

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Begin a payment; with `confirm` it is tried at once. Raises Declined where it is refused."""
        ...

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        ...

    async def payment_intents(self, customer: str, *, since_s: int) -> list[StripeObject]:
        """Those of a customer that were begun at `since_s` or later, the newest first."""
        ...

    async def cancel_payment_intent(self, intent_id: str) -> StripeObject:
        """Withdraw a payment: nobody can pay it any more. Raises Refused where it is paid, on its way or withdrawn."""
        ...

    async def payment_methods(self, customer: str) -> list[StripeObject]:
        """What a customer has saved to pay with, the newest first."""
        ...

    async def charge(self, charge_id: str) -> StripeObject:
        """One attempt to take money."""
        ...

    async def create_refund(self, params: Params, *, key: str) -> StripeObject:
        """Give money back."""
        ...

    async def refund(self, refund_id: str) -> StripeObject:
        """One refund."""
        ...

    async def refunds(self, intent_id: str) -> list[StripeObject]:
        """All of a payment, failed ones too, the newest first."""
        ...

    async def dispute(self, dispute_id: str) -> StripeObject:
        """One dispute."""
        ...

    async def disputes(self, intent_id: str) -> list[StripeObject]:
        """All of a payment, the newest first."""
        ...


API_VERSION: Final = "2026-10-28.endive"
"""The version of Stripe's API that all of this was written for; that of the client, as a test proves."""


class Events(Protocol):
    """What happened at Stripe."""

    async def events(self, *, after: str | None = None, since_s: int | None = None) -> list[StripeObject]:
        """Snapshot events, the oldest first: those after the event id `after`, or created at `since_s` or later.

        Stripe keeps them 30 days (https://docs.stripe.com/api/events/list).
        """
        ...

    async def thin_event(self, event_id: str) -> StripeObject:
        """One event of `/v2/core/events`, its data included."""
        ...

    async def thin_events(self, types: Sequence[str], *, since_s: int | None = None) -> list[StripeObject]:
        """Those of some types that exist as thin events alone, in any order; Stripe keeps them 30 days as well."""
        ...


class Gateway(Meters, Setup, Customers, Invoices, InvoicePages, Payments, Events, Protocol):
    """All of it."""

    livemode: bool
    """Whether real money moves: the API key's kind."""

    answers: bool
    """Whether Stripe answered the last call, and the key held; True before the first."""

    def stripe_ms(self) -> int | None:
        """Stripe's clock as its last answer's `Date` told it, carried on since; None before the first answer."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
