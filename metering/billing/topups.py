"""Buys credits for organisations that run low and asked for it, with what they saved to pay with.

An attempt is written down before Stripe hears of it, with everything that its call says, so that every repeat is the
same call under the same key: https://docs.stripe.com/api/idempotent_requests. What Stripe makes of it brings credits by
the same look at the payment as a browser's or an event's. A card that declines, or asks for its holder, stops it:
nobody is there to answer. https://docs.stripe.com/payments/save-and-reuse#charge-saved-payment-method
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol
from uuid import uuid4

import structlog

from metering.billing.credits import CreditShop
from metering.billing.errors import Barred, Declined, GatewayError, KeyReused, NotThere, Refused
from metering.billing.gateway import Params, StripeObject
from metering.billing.sales import SUCCEEDED, Sale
from metering.billing.subscriptions import id_of
from metering.billing.waiting import waiting
from metering.errors import Problem
from metering.payment_errors import NoPayer, PackageUnknown
from metering.store.credits import Balance
from metering.store.effects import ACTOR
from metering.store.grants import By, GrantState
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.topups import Attempt, Rule, Stop, TopUp, TopUps

TOPUP_S: Final = 5.0
"""Between two looks for organisations that run low."""

KEY_MS: Final = 23 * 3_600_000
"""Stripe forgets a key after 24 hours or later; an attempt that it does not know by then was never made."""

TOPUP_TAG: Final = "metering_topup"
"""Metadata of a payment: the attempt that it is of."""

_SLACK_S: Final = 600
"""Before an attempt began, by a clock of Stripe's that is late."""

_DECIDED: Final = frozenset({SUCCEEDED, "processing", "canceled"})
"""What a payment cannot be withdrawn from: https://docs.stripe.com/api/payment_intents/cancel."""

_SELF: Final = By(ACTOR, "credits fell below their mark")

log = structlog.get_logger(__name__)


class Till(Protocol):
    """The verbs of Stripe that it takes: see `metering.billing.gateway`."""

    async def customer(self, customer_id: str) -> StripeObject:
        """One customer; a deleted one has `deleted`."""
        ...

    async def payment_methods(self, customer: str) -> list[StripeObject]:
        """What a customer has saved to pay with, the newest first."""
        ...

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Begin a payment and try it at once."""
        ...

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        ...

    async def cancel_payment_intent(self, intent_id: str) -> StripeObject:
        """Withdraw a payment."""
        ...

    async def payment_intents(self, customer: str, *, since_s: int) -> list[StripeObject]:
        """Those of a customer that were begun at `since_s` or later, the newest first."""
        ...


class Book(Protocol):
    """What it takes of the ledger: see `metering.store.credits.Credits`."""

    async def grants(self, org_id: str) -> list[GrantState]:
        """Every grant, the newest first."""
        ...

    async def balance(self, org_id: str) -> Balance:
        """What may be used now."""
        ...

    async def mark_low(self, org_id: str, low: int | None, by: By) -> int:
        """Set the balance below which credits are low."""
        ...


class AutoTopUp:
    """Sets the rules, and carries them out: `turn` is a job of every worker."""

    def __init__(
        self, till: Till, shop: CreditShop, book: TopUps, ledger: Book, orgs: Orgs, now_ms: Callable[[], int],
        frozen: Callable[[str], Awaitable[bool]],
    ) -> None:  # fmt: skip
        """`frozen`: whether the sums of an organisation do not hold, so that nothing is billed."""
        self._till, self._shop, self._book, self._ledger, self._orgs = till, shop, book, ledger, orgs
        self._now_ms, self._frozen = now_ms, frozen

    # ── setting ──────────────────────────────────────────────────────────────────────────────────────────

    async def set(self, org: Org, rule: Rule, threshold: int, by: By) -> None:
        """Set the rule of an organisation, and the mark below which its credits are low.

        A rule that buys nothing is set whatever Stripe says. Raises PackageUnknown, NoPayer where nobody ever paid,
        CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        known = await self._book.find(org.org_id)
        customer = known.customer if known else ""
        if rule.enabled:
            self._shop.package(rule.package)
            async with waiting("top-up"):
                customer = await self._payer_of(org, customer)
            if not customer:
                raise NoPayer
        await self._ledger.mark_low(org.org_id, threshold, by)
        await self._book.set(org.org_id, rule, customer, by)

    async def turn_off(self, org: Org, by: By) -> None:
        """Buy nothing any more, and keep the rest of what was set. Nothing where nothing was."""
        known = await self._book.find(org.org_id)
        if known is not None:
            await self._book.set(org.org_id, replace(known.rule, enabled=False), known.customer, by)

    async def find(self, org_id: str) -> TopUp | None:
        """The rule, and what was done so far."""
        return await self._book.find(org_id)

    def used(self, top_up: TopUp) -> tuple[int, int]:
        """Attempts of the last 24 hours, and minor units of the last 31 days."""
        return top_up.used(self._now_ms())

    async def _payer_of(self, org: Org, known: str) -> str:
        """The customer of the subscription, else of the last payment for credits, else the one known before."""
        if org.profile.stripe_customer_id:
            return org.profile.stripe_customer_id
        for grant in await self._ledger.grants(org.org_id):
            if "payment_intent" in grant.source:
                return id_of((await self._till.payment_intent(grant.source["payment_intent"])).get("customer"))
        return known

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────────────

    async def turn(self) -> None:
        """Begin what is wanted, and look again at what is under way."""
        for org_id in await self._book.under_way(self._now_ms()):
            if not await self._safely(org_id, self._look_again):
                return
        for org_id in await self._book.wanting(self._now_ms()):
            if not await self._safely(org_id, self._begin):
                return

    async def _safely(self, org_id: str, work: Callable[[str], Awaitable[None]]) -> bool:
        """One organisation whose figures cannot be read, or that Stripe refuses, keeps no other waiting. False: Stripe
        answers nobody now, and the others wait for the next turn.
        """
        try:
            await work(org_id)
        except Problem as problem:
            log.warning("top-up not looked at", org=org_id, code=problem.code)
        except GatewayError as error:
            log.warning("top-up waits for Stripe", org=org_id, error=error.message)
            return isinstance(error, Refused) and not isinstance(error, Barred)
        return True

    async def _begin(self, org_id: str) -> None:
        """Write an attempt down, and carry it out."""
        known, org = await self._book.find(org_id), await self._orgs.living(org_id)
        if known is None or org is None or await self._frozen(org_id):
            return
        try:
            sale, _ = self._shop.terms(org_id, self._shop.package(known.rule.package))
        except PackageUnknown:
            await self._book.end(org_id, "", _SELF, stop=Stop.NOT_SOLD)
            return
        why = await self._book.ready(org_id, sale.credits, sale.amount_minor)
        if why == "held" or (not why and await self._disputed(org_id)):
            await self._book.end(org_id, "", _SELF, stop=Stop.DISPUTED)
            return
        if why:
            return
        customer = org.profile.stripe_customer_id or known.customer
        method = await self._method_of(customer)
        if isinstance(method, Stop):
            await self._book.end(org_id, "", _SELF, stop=method)
            return
        attempt = Attempt(f"tu_{uuid4().hex}", sale.credits, sale.amount_minor, sale.currency, customer, method)
        if await self._book.begin(org_id, attempt, _SELF):
            await self._carry_out(org_id, replace(attempt, at_ms=self._now_ms()))

    async def _disputed(self, org_id: str) -> bool:
        """Whether a payment for credits is disputed, also where they are spent and none is left to be frozen."""
        return any(grant.frozen for grant in await self._ledger.grants(org_id))

    async def _method_of(self, customer: str) -> str | Stop:
        """What a customer pays with: what their invoices are paid with, else what they saved last."""
        try:
            found = await self._till.customer(customer)
        except NotThere:
            return Stop.NO_PAYER
        if found.get("deleted"):
            return Stop.NO_PAYER
        chosen = id_of((found.get("invoice_settings") or {}).get("default_payment_method"))
        saved = await self._till.payment_methods(customer)
        names = [str(one["id"]) for one in saved]
        if chosen in names:
            return chosen
        return names[0] if names else Stop.NO_METHOD

    async def _look_again(self, org_id: str) -> None:
        """Find out what became of an attempt whose end nobody wrote down, or make its call again."""
        await self._book.look_later(org_id, self._now_ms())
        known = await self._book.find(org_id)
        attempt = None if known is None else known.attempt
        if known is None or attempt is None:
            return
        intent = await self._known(attempt)
        if intent is not None:
            await self._settle(org_id, attempt, intent)
        elif self._now_ms() - attempt.at_ms > KEY_MS:
            await self._book.forget(org_id, attempt.attempt_id, _SELF)
        elif await self._still_wanted(org_id, known):
            await self._carry_out(org_id, attempt)

    async def _still_wanted(self, org_id: str, known: TopUp) -> bool:
        """Whether a call that Stripe may never have heard of is made again; else it is waited for until it is lost."""
        if not known.rule.enabled or known.stopped or await self._frozen(org_id):
            return False
        return (await self._ledger.balance(org_id)).low and not await self._disputed(org_id)

    async def _known(self, attempt: Attempt) -> StripeObject | None:
        """The payment of an attempt, where Stripe has one."""
        since_s = attempt.at_ms // 1000 - _SLACK_S
        for intent in await self._till.payment_intents(attempt.customer, since_s=since_s):
            if (intent.get("metadata") or {}).get(TOPUP_TAG) == attempt.attempt_id:
                return intent
        return None

    async def _carry_out(self, org_id: str, attempt: Attempt) -> None:
        """Charge what was saved. An outcome that nobody knows is looked at later."""
        try:
            intent = await self._till.create_payment_intent(
                self._params(org_id, attempt), key=f"topup:{attempt.attempt_id}"
            )
        except Declined as error:
            await self._declined(org_id, attempt, error)
        except (Barred, KeyReused):
            raise  # an operator's business, or an answer that another worker waits for
        except Refused as error:
            stop = Stop.NO_PAYER if isinstance(error, NotThere) or error.param == "customer" else Stop.REFUSED
            await self._book.end(org_id, attempt.attempt_id, _SELF, stop=stop, detail=error.code or error.message)
        else:
            await self._settle(org_id, attempt, intent)

    def _params(self, org_id: str, attempt: Attempt) -> Params:
        terms = self._shop.sealed(Sale(org_id, attempt.credits, attempt.amount_minor, attempt.currency))
        return {
            **terms,
            "metadata": {**terms["metadata"], TOPUP_TAG: attempt.attempt_id},
            "customer": attempt.customer,
            "payment_method": attempt.method,
            "off_session": True,
            "confirm": True,
        }

    async def _declined(self, org_id: str, attempt: Attempt, error: Declined) -> None:
        """What a card declined is there all the same; where Stripe does not say as what, nobody can pay it."""
        if error.intent_id:
            await self._settle(org_id, attempt, await self._till.payment_intent(error.intent_id))
        else:
            await self._stop(org_id, attempt, error.code)

    async def _settle(self, org_id: str, attempt: Attempt, intent: StripeObject) -> None:
        """Credit a payment that succeeded; one that needs somebody stops it; one on its way is looked at later."""
        code = _why(intent)
        if intent["status"] not in _DECIDED:
            intent = await self._withdrawn(intent)
        if intent["status"] == SUCCEEDED:
            if await self._shop.look(intent["id"]) is None:  # the data set's secret is another one since
                await self._book.end(org_id, attempt.attempt_id, _SELF, stop=Stop.REFUSED, detail="payment-mismatch")
                return
            await self._book.end(org_id, attempt.attempt_id, _SELF)
        elif intent["status"] != "processing":
            await self._stop(org_id, attempt, code)

    async def _withdrawn(self, intent: StripeObject) -> StripeObject:
        """A payment that waits for somebody, so that nobody pays it later outside of the caps; as it is then."""
        try:
            return await self._till.cancel_payment_intent(intent["id"])
        except Barred:
            raise
        except Refused as error:  # it was paid, or withdrawn, a moment ago
            log.warning("top-up not withdrawn", payment_intent=intent["id"], error=error.message)
            return await self._till.payment_intent(intent["id"])

    async def _stop(self, org_id: str, attempt: Attempt, code: str) -> None:
        stop = Stop.AUTHENTICATION if code == "authentication_required" else Stop.DECLINED
        await self._book.end(org_id, attempt.attempt_id, _SELF, stop=stop, detail=code)


def _why(intent: StripeObject) -> str:
    """Stripe's word for what keeps a payment from being paid."""
    if intent["status"] == "requires_action":
        return "authentication_required"
    return str((intent.get("last_payment_error") or {}).get("code") or intent["status"])
