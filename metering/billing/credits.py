"""Sells credits: a payment at Stripe makes one grant, and what is given back of it takes credits back.

Everything that is told of a payment (a browser that confirms it, an event of it, of a refund or of a dispute) leads to
the same look at Stripe: what is the payment now, and what is gone of it. The grant's id comes from the payment's, and
what is taken back is a total, so nothing depends on who comes first, how often, or in which order.
https://docs.stripe.com/payments/payment-intents
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from metering.billing.buyers import buyer_of
from metering.billing.checkout import Order, Session
from metering.billing.errors import NotThere
from metering.billing.gateway import Params, StripeObject
from metering.billing.sales import (
    NEGATIVE_TAG,
    SUCCEEDED,
    NotOurs,
    Reversal,
    Sale,
    Seals,
    credits_back,
    grant_id_of,
    refunds_of,
    reversal_of,
)
from metering.billing.subscriptions import ORG_TAG
from metering.billing.waiting import once, waiting
from metering.clock import MS_PER_S
from metering.errors import PaymentFailed
from metering.payment_errors import NotRefundable, PackageUnknown, PaymentMismatch, PaymentNotFound
from metering.store.effects import ACTOR
from metering.store.grants import Refunds
from metering.store.org import Org
from plans.catalogue import Catalogue
from plans.packages import Package

ORDER_TAG: Final = "metering_order"
REASON_TAG: Final = "metering_reason"
"""Metadata of a refund: what its repeats are known by, and why it was made."""

_REASON_CHARS_MAX: Final = 500
"""Of a value of Stripe's metadata."""

log = structlog.get_logger(__name__)


class Till(Protocol):
    """The verbs of Stripe that selling credits takes: see `metering.billing.gateway`."""

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        ...

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """Begin a checkout."""
        ...

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Begin a payment."""
        ...

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        ...

    async def create_refund(self, params: Params, *, key: str) -> StripeObject:
        """Give money back."""
        ...

    async def refunds(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        ...

    async def disputes(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        ...


@dataclass(frozen=True, slots=True)
class Bought:
    """A grant that a payment makes: its id, its credits, and where they come from."""

    grant_id: str
    credits: int
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a grant and its organisation stand: credits of it that were taken back, what may be used, and is owed."""

    taken: int
    balance: int


@dataclass(frozen=True, slots=True)
class Author:
    """Who brings the ledger to where Stripe is, why, and in which request ('': none)."""

    actor: str = ACTOR
    reason: str = "Stripe's word"
    request_id: str = ""


STRIPE: Final = Author()


class Ledger(Protocol):
    """The grants of credits, as selling needs them. Every call may be repeated. Raises OrgNotFound."""

    async def ticket(self, org_id: str) -> int:
        """A number before Stripe is asked: of two answers that of the higher one holds; 0: no such organisation."""
        ...

    async def buy(self, org_id: str, bought: Bought, author: Author) -> bool:
        """Make the grant, once; False where it is there already."""
        ...

    async def stand(
        self, org_id: str, grant_id: str, asked: int, author: Author, *, ticket: int, frozen: bool,
        allow_negative: bool, refunds: Refunds,
    ) -> Standing:  # fmt: skip
        """Bring a grant to this: `asked` credits of it taken back in all, its rest frozen or not; count the refunds."""
        ...

    async def balance(self, org_id: str) -> int:
        """What may be used now, less what is owed."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """A payment that waits for its payer. Stripe.js takes the secret: https://docs.stripe.com/js/payment_intents."""

    intent_id: str
    client_secret: str
    sale: Sale


@dataclass(frozen=True, slots=True)
class Settled:
    """A payment as it stands: what it is at Stripe, its sale, whether this call made the grant, what is gone of it.

    `asked` and `taken` are credits: what the money given back comes to, and what of that was not spent.
    """

    intent: StripeObject
    sale: Sale
    made: bool = False
    refunds: tuple[StripeObject, ...] = ()
    reversal: Reversal = field(default_factory=Reversal)
    asked: int = 0
    taken: int = 0
    balance: int = 0

    @property
    def status(self) -> str:
        """The payment's: https://docs.stripe.com/payments/paymentintents/lifecycle."""
        return str(self.intent["status"])


@dataclass(frozen=True, slots=True)
class Refunded:
    """A refund, and the credits that it took: those that were spent already are told, not taken."""

    refund_id: str
    status: str
    amount_minor: int
    credits_removed: int
    credits_spent: int
    settled: Settled


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """What to give back: an amount (None: all that is left), why, whether spent credits become a debt, a name that its
    repeats share, and who asked for it in which request.
    """

    intent_id: str
    amount_minor: int | None
    reason: str
    allow_negative: bool
    name: str
    actor: str = ""
    request_id: str = ""


class CreditShop:
    """Sells the packages of a catalogue."""

    def __init__(self, till: Till, catalogue: Catalogue, seals: Seals, ledger: Ledger) -> None:
        self._till, self._catalogue, self._seals, self._ledger = till, catalogue, seals, ledger

    def package(self, credits_asked: int) -> Package:
        """The package of so many credits. Raises PackageUnknown."""
        found = self._catalogue.packages.get(credits_asked)
        if found is None:
            sold = sorted(self._catalogue.packages)
            told = f"no package has {credits_asked} credits; there are {', '.join(map(str, sold)) or 'none'}"
            raise PackageUnknown(told, credits=credits_asked, packages=sold)
        return found

    def terms(self, org_id: str, package: Package) -> tuple[Sale, dict[str, Any]]:
        """A sale of a package, and what an intent of it says."""
        sale = Sale(org_id, package.credits, package.price_minor, self._catalogue.currency)
        return sale, {
            "amount": sale.amount_minor,
            "currency": sale.currency,
            "description": package.title,
            "metadata": self._seals.metadata(sale),
        }

    async def begin(self, org: Org, credits_asked: int, name: str) -> Begun:
        """Begin a payment for a package; repeats share `name`. What pays is kept for top-ups to come.

        Raises PackageUnknown, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        sale, terms = self.terms(org.org_id, self.package(credits_asked))
        async with waiting("payment"):
            params = {
                **terms,
                "customer": await buyer_of(org, self._till, self._seals.dataset_id),
                "setup_future_usage": "off_session",
                "automatic_payment_methods": {"enabled": True},
            }
            made = await self._till.create_payment_intent(params, key=f"credits:{name}")
        return Begun(made["id"], made["client_secret"], sale)

    async def checkout(self, org: Org, credits_asked: int, order: Order) -> Session:
        """Begin a session of Stripe's Checkout for a package: the same payment, on a page of Stripe's.

        Raises PackageUnknown, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        package = self.package(credits_asked)
        sale, terms = self.terms(org.org_id, package)
        price = {
            "currency": sale.currency,
            "unit_amount": sale.amount_minor,
            "product_data": {"name": package.title},
        }
        paid = {name: terms[name] for name in ("description", "metadata")}
        async with waiting("checkout"):
            params = {
                "mode": "payment",
                "customer": await buyer_of(org, self._till, self._seals.dataset_id),
                "client_reference_id": org.org_id,
                "line_items": [{"price_data": price, "quantity": 1}],
                "payment_intent_data": {**paid, "setup_future_usage": "off_session"},
                "metadata": {ORG_TAG: org.org_id},
                "success_url": order.success_url,
                "cancel_url": order.cancel_url,
            }
            made = await once(self._till.create_checkout, params, f"credits checkout:{order.name}")
        return Session(made["id"], made["url"], made["expires_at"] * MS_PER_S)

    async def confirm(self, org: Org, intent_id: str) -> Settled:
        """Credit a payment of an organisation, if it succeeded; nobody need wait for the event of it.

        Raises PaymentNotFound for one that is none of theirs, PaymentMismatch, PaymentFailed, and those of Stripe.
        """
        async with waiting("payment"):
            try:
                settled = await self._settled(await self._till.payment_intent(intent_id))
            except NotThere:
                raise PaymentNotFound from None
            except NotOurs as error:
                raise _refused(error, intent_id) from None
        if settled.sale.org_id != org.org_id:
            raise PaymentNotFound
        if settled.status == "requires_payment_method" and settled.intent.get("last_payment_error"):
            raise _failed(settled.intent)
        return settled

    async def look(self, intent_id: str) -> Settled | None:
        """What an event of a payment makes of it; None where it sells no credits of ours. Raises GatewayErrors."""
        intent = await self._till.payment_intent(intent_id)
        try:
            return await self._settled(intent)
        except NotOurs as error:
            _tell(error, intent_id)
            return None

    async def refund(self, order: RefundOrder) -> Refunded:
        """Give money back, and take the credits that it bought.

        Raises PaymentNotFound, PaymentMismatch, NotRefundable, and those of Stripe.
        """
        async with waiting("refund"):
            try:
                before = await self._settled(await self._till.payment_intent(order.intent_id))
            except NotThere:
                raise PaymentNotFound from None
            except NotOurs as error:
                raise _refused(error, order.intent_id) from None
            known = [one for one in before.refunds if (one.get("metadata") or {}).get(ORDER_TAG) == order.name]
            if known:  # made before, and not heard of: Stripe's own memory of the key ends after a day
                return _refunded(known[0], before)
            made = await self._till.create_refund(_refund_params(before, order), key=f"refund:{order.name}")
            author = Author(order.actor, order.reason, order.request_id)
            after = await self._settled(await self._till.payment_intent(order.intent_id), author)
        return _refunded(made, after)

    async def _settled(self, intent: StripeObject, author: Author = STRIPE) -> Settled:
        """Bring the ledger to where a payment is. Raises NotOurs."""
        sale = self._seals.sale_of(intent)
        ticket = await self._ledger.ticket(sale.org_id)
        if not ticket:
            log.error("payment of an organisation that is not there", payment_intent=intent["id"])
            raise NotOurs
        if intent["status"] != SUCCEEDED:
            return Settled(intent, sale, balance=await self._ledger.balance(sale.org_id))
        grant_id = grant_id_of(intent["id"])
        made = await self._ledger.buy(sale.org_id, Bought(grant_id, sale.credits, _source(intent, sale)), STRIPE)
        refunds, disputes = await self._till.refunds(intent["id"]), await self._till.disputes(intent["id"])
        gone = reversal_of(refunds, disputes)
        asked = credits_back(sale, gone.amount_minor)
        if not refunds and not disputes:
            return Settled(intent, sale, made, balance=await self._ledger.balance(sale.org_id))
        stands = await self._ledger.stand(
            sale.org_id, grant_id, asked, author, ticket=ticket, frozen=gone.held, allow_negative=gone.allow_negative,
            refunds=refunds_of(sale, refunds),
        )  # fmt: skip
        return Settled(intent, sale, made, tuple(refunds), gone, asked, stands.taken, stands.balance)


def _source(intent: StripeObject, sale: Sale) -> dict[str, Any]:
    """Where the credits of a grant come from, for whoever asks later."""
    return {"payment_intent": intent["id"], "amount_minor": sale.amount_minor, "currency": sale.currency}


def _refund_params(before: Settled, order: RefundOrder) -> dict[str, Any]:
    """What to ask Stripe for. Raises NotRefundable for what it would refuse, in words of ours."""
    if before.status != SUCCEEDED:
        raise NotRefundable(f"the payment is {before.status}", status_at_stripe=before.status)
    left = before.sale.amount_minor - before.reversal.amount_minor
    if before.reversal.held or left <= 0 or (order.amount_minor or left) > left:
        told = "it is disputed" if before.reversal.held else f"{left} of {before.sale.amount_minor} can be given back"
        raise NotRefundable(told, left_minor=max(0, left), currency=before.sale.currency)
    metadata = {ORG_TAG: before.sale.org_id, ORDER_TAG: order.name, REASON_TAG: order.reason[:_REASON_CHARS_MAX]}
    if order.allow_negative:
        metadata[NEGATIVE_TAG] = "true"
    amount = {} if order.amount_minor is None else {"amount": order.amount_minor}
    return {"payment_intent": order.intent_id, "reason": "requested_by_customer", "metadata": metadata, **amount}


def _refunded(made: StripeObject, after: Settled) -> Refunded:
    """What one refund took, whoever took it: all that was taken, less what it would have been without this one."""
    gone = after.reversal.amount_minor - (0 if made["status"] in {"failed", "canceled"} else made["amount"])
    asked_before = credits_back(after.sale, gone)
    removed = after.taken - min(after.taken, asked_before)
    spent = after.asked - asked_before - removed
    return Refunded(made["id"], made["status"], made["amount"], removed, max(0, spent), after)


def _refused(error: NotOurs, intent_id: str) -> PaymentNotFound | PaymentMismatch:
    """A payment of another product is not there; one that says it is ours and lies is told, and alarmed."""
    _tell(error, intent_id)
    return PaymentNotFound() if error.lie is None else PaymentMismatch(error.lie.value)


def _tell(error: NotOurs, intent_id: str) -> None:
    """Somebody must look at a payment that lies; what other products sell is nobody's business here."""
    if error.lie is not None:
        log.error("payment is not believed", payment_intent=intent_id, why=error.lie.value)


def _failed(intent: StripeObject) -> PaymentFailed:
    error = intent["last_payment_error"]
    return PaymentFailed(
        str(error.get("message") or ""), stripe_code=error.get("code"), decline_code=error.get("decline_code")
    )
