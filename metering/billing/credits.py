"""Sells credits: a payment at Stripe makes one grant, and what is given back of it takes credits back.

Everything that is told of a payment (a browser that confirms it, an event of it, of a refund or of a dispute) leads to
the same look at Stripe: what is the payment now, and what is gone of it. The grant's id comes from the payment's, and
what is taken back is a total, so nothing depends on who comes first, how often, or in which order.
https://docs.stripe.com/payments/payment-intents
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog

from metering.billing.buyers import buyer_of
from metering.billing.checkout import Order, Session
from metering.billing.errors import NotThere, Refused, Unknown
from metering.billing.gateway import Params, StripeObject
from metering.billing.refunds import Refunded, RefundOrder, Settled, refund_params, refunded
from metering.billing.sales import (
    SUCCEEDED,
    NotOurs,
    Sale,
    Seals,
    gone_of,
    grant_id_of,
    reversal_of,
)
from metering.billing.subscriptions import ORG_TAG
from metering.billing.taxes import tax_params
from metering.billing.waiting import once, waiting
from metering.clock import MS_PER_S
from metering.errors import PaymentFailed
from metering.payment_errors import PackageUnknown, PaymentMismatch, PaymentNotFound
from metering.store.effects import ACTOR
from metering.store.grants import Gone
from metering.store.org import Org
from plans.catalogue import Catalogue
from plans.packages import Package

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
    """A grant that a payment makes: its id, its credits, and where they come from.

    `held`: it is made frozen, as money of it is gone or disputed already, and what is to go must not burn before.
    """

    grant_id: str
    credits: int
    source: Mapping[str, Any] = field(default_factory=dict)
    held: bool = False


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

    async def stand(self, org_id: str, grant_id: str, gone: Gone, author: Author, *, ticket: int) -> Standing:
        """Bring a grant to where a reading of that ticket found its payment."""
        ...

    async def check_room(self, org_id: str) -> None:
        """Raises TooManyGrants where an organisation has as many open grants as it may."""
        ...

    async def balance(self, org_id: str) -> int:
        """What may be used now, less what is owed. Raises OrgErased."""
        ...


class NoOrg(NotOurs):
    """It sold credits to an organisation that is not there, or not any more."""

    def __init__(self, sale: Sale) -> None:
        super().__init__()
        self.sale = sale


@dataclass(frozen=True, slots=True)
class Begun:
    """A payment that waits for its payer. Stripe.js takes the secret: https://docs.stripe.com/js/payment_intents."""

    intent_id: str
    client_secret: str
    sale: Sale


class CreditShop:
    """Sells the packages of a catalogue. `automatic_tax`: Stripe adds tax to checkouts; it never does to an intent."""

    def __init__(
        self, till: Till, catalogue: Catalogue, seals: Seals, ledger: Ledger, *, automatic_tax: bool = False
    ) -> None:
        self._till, self._catalogue, self._seals, self._ledger = till, catalogue, seals, ledger
        self._automatic_tax = automatic_tax

    def package(self, credits_asked: int) -> Package:
        """The package of so many credits. Raises PackageUnknown."""
        found = self._catalogue.packages.get(credits_asked)
        if found is None:
            sold = sorted(self._catalogue.packages)
            told = f"no package has {credits_asked} credits; there are {', '.join(map(str, sold)) or 'none'}"
            raise PackageUnknown(told, credits=credits_asked, packages=sold)
        return found

    def terms(self, org_id: str, package: Package, *, taxed: bool = False) -> tuple[Sale, dict[str, Any]]:
        """A sale of a package, and what an intent of it says; `taxed`: Stripe makes it, of a checkout, and adds tax."""
        sale = Sale(org_id, package.credits, package.price_minor, self._catalogue.currency)
        return sale, self.sealed(sale, taxed=taxed) | {"description": package.title}

    def sealed(self, sale: Sale, *, taxed: bool = False) -> dict[str, Any]:
        """What makes an intent this sale, and is the same whenever it is asked for."""
        metadata = self._seals.metadata(sale, taxed=taxed)
        return {"amount": sale.amount_minor, "currency": sale.currency, "metadata": metadata}

    async def begin(self, org: Org, credits_asked: int, name: str) -> Begun:
        """Begin a payment for a package; repeats share `name`. What pays is kept for top-ups to come.

        Raises PackageUnknown, TooManyGrants, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        sale, terms = self.terms(org.org_id, self.package(credits_asked))
        await self._ledger.check_room(org.org_id)
        async with waiting("payment"):
            params = {
                **terms,
                "customer": await buyer_of(org, self._till, self._seals.dataset_id),
                "setup_future_usage": "off_session",
                "automatic_payment_methods": {"enabled": True},
            }
            made = await once(self._till.create_payment_intent, params, f"credits:{name}")
        return Begun(made["id"], made["client_secret"], sale)

    async def checkout(self, org: Org, credits_asked: int, order: Order) -> Session:
        """Begin a session of Stripe's Checkout for a package: the same payment, on a page of Stripe's.

        Raises PackageUnknown, TooManyGrants, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        package = self.package(credits_asked)
        await self._ledger.check_room(org.org_id)
        taxed = self._automatic_tax
        sale, terms = self.terms(org.org_id, package, taxed=taxed)
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
                **tax_params(wanted=taxed),
            }
            made = await once(self._till.create_checkout, params, f"credits checkout:{order.name}")
        return Session(made["id"], made["url"], made["expires_at"] * MS_PER_S)

    async def confirm(self, org: Org, intent_id: str) -> Settled:
        """Credit a payment of an organisation, if it succeeded; nobody need wait for the event of it.

        Raises PaymentNotFound for one that is none of theirs, PaymentMismatch, PaymentFailed, and those of Stripe.
        """
        async with waiting("payment"):
            settled = await self._found(intent_id, org.org_id)
        if settled.status == "requires_payment_method" and settled.intent.get("last_payment_error"):
            raise _failed(settled.intent)
        return settled

    async def look(self, intent_id: str) -> Settled | None:
        """What an event of a payment makes of it; None where it sells no credits of ours.

        Raises GatewayErrors; OrgErased, OrgNotFound where somebody paid for an organisation that is not there, and did
        not get all of it back.
        """
        intent = await self._till.payment_intent(intent_id)
        try:
            return await self._settled(intent)
        except NoOrg as error:
            await self._look_for_money(intent, error.sale)
            return None
        except NotOurs as error:
            _tell(error, intent_id)
            return None

    async def _look_for_money(self, intent: StripeObject, sale: Sale) -> None:
        """Tell of money that is to go back: there is nobody to credit. Raises OrgErased, OrgNotFound."""
        if intent["status"] != SUCCEEDED:
            return
        refunds, disputes = await self._till.refunds(intent["id"]), await self._till.disputes(intent["id"])
        if reversal_of(refunds, disputes).amount_minor < sale.paid_minor:
            await self._ledger.balance(sale.org_id)

    async def refund(self, order: RefundOrder) -> Refunded:
        """Give money back, and take the credits that it bought.

        Raises PaymentNotFound, PaymentMismatch, NotRefundable, RefundConflict, and those of Stripe.
        """
        async with waiting("refund"):
            before = await self._found(order.intent_id)
            known = order.made_before(before.refunds)
            if known is not None:
                return refunded(known, before)
            made = await self._give_back(before, order)
            author = Author(order.actor, order.reason, order.request_id)
            after = await self._settled(await self._till.payment_intent(order.intent_id), author)
        return refunded(made, after)

    async def _give_back(self, before: Settled, order: RefundOrder) -> StripeObject:
        """Make a refund, once whatever becomes of the call. Raises NotRefundable, GatewayErrors."""
        params, key = refund_params(before, order), f"refund:{order.name}"
        try:
            return await self._till.create_refund(params, key=key)
        except Refused:  # perhaps as another refund, or a dispute, came first
            after = await self._found(order.intent_id)
            made = order.made_before(after.refunds)
            if made is None:
                refund_params(after, order)
                raise
            return made
        except Unknown as error:
            if error.status != HTTPStatus.INTERNAL_SERVER_ERROR or not error.request_id:
                raise  # it may still be at work: only a 500 of Stripe's own has ended, and is kept under its key
            made = order.made_before(await self._till.refunds(order.intent_id))
            return made or await self._till.create_refund(params, key=f"{key}:again")

    async def _found(self, intent_id: str, org_id: str | None = None) -> Settled:
        """A payment as somebody asked for it, who may know of those of one organisation (None: of all).

        Raises PaymentNotFound, PaymentMismatch, GatewayErrors.
        """
        try:
            intent = await self._till.payment_intent(intent_id)
            if org_id not in {None, self._seals.sale_of(intent).org_id}:
                raise PaymentNotFound
            return await self._settled(intent)
        except NotThere:
            raise PaymentNotFound from None
        except NotOurs as error:
            raise _refused(error, intent_id) from None

    async def _settled(self, intent: StripeObject, author: Author = STRIPE) -> Settled:
        """Bring the ledger to where a payment is. Raises NotOurs."""
        sale = self._seals.sale_of(intent)
        ticket = await self._ledger.ticket(sale.org_id)
        if not ticket:
            raise NoOrg(sale)
        if intent["status"] != SUCCEEDED:
            return Settled(intent, sale, balance=await self._ledger.balance(sale.org_id))
        refunds, disputes = await self._till.refunds(intent["id"]), await self._till.disputes(intent["id"])
        bought = Bought(grant_id_of(intent["id"]), sale.credits, _source(intent, sale), bool(refunds or disputes))
        made = await self._ledger.buy(sale.org_id, bought, STRIPE)
        if not bought.held:
            return Settled(intent, sale, made, balance=await self._ledger.balance(sale.org_id))
        reversal = reversal_of(refunds, disputes)
        gone = gone_of(sale, refunds, disputes)
        stands = await self._ledger.stand(sale.org_id, bought.grant_id, gone, author, ticket=ticket)
        return Settled(intent, sale, made, tuple(refunds), reversal, gone.asked, stands.taken, stands.balance)


def _source(intent: StripeObject, sale: Sale) -> dict[str, Any]:
    """Where the credits of a grant come from, for whoever asks later."""
    told = {"payment_intent": intent["id"], "amount_minor": sale.amount_minor, "currency": sale.currency}
    return told | ({"tax_minor": sale.tax_minor} if sale.tax_minor else {})


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
