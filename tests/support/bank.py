"""A Stripe in memory for whoever sells credits: payments, refunds and disputes, each key one object for ever."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from metering.billing.errors import KeyReused, NotThere, Refused
from metering.billing.gateway import Params, StripeObject
from tests.support.stripe_schema import check_params

_GONE: Final = {"failed", "canceled"}


@dataclass(slots=True)
class Bank:
    """What was begun, paid, given back and disputed. Every list shows the newest first, as Stripe's do."""

    intents: dict[str, StripeObject] = field(default_factory=dict)
    given_back: list[StripeObject] = field(default_factory=list)
    disputed: list[StripeObject] = field(default_factory=list)
    keys: dict[str, tuple[Params, StripeObject]] = field(default_factory=dict)

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────────────

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        return self._once("/v1/customers", params, key, lambda: {"id": "cus_1"})

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """None is begun."""
        raise AssertionError("who pays here has no page of Stripe's before them")

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Begin a payment."""
        return self._once("/v1/payment_intents", params, key, lambda: self._begun(params))

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        if intent_id not in self.intents:
            raise NotThere("No such payment_intent", status=404)
        return dict(self.intents[intent_id])

    async def create_refund(self, params: Params, *, key: str) -> StripeObject:
        """Give money back, no more than is left."""
        return self._once("/v1/refunds", params, key, lambda: self._refunded(params))

    async def refunds(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        return [dict(one) for one in self.given_back if one["payment_intent"] == intent_id]

    async def disputes(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        return [dict(one) for one in self.disputed if one["payment_intent"] == intent_id]

    # ── what happens by itself ───────────────────────────────────────────────────────────────────────────

    def pay(self, intent_id: str) -> None:
        """The payer pays."""
        one = self.intents[intent_id]
        one |= {"status": "succeeded", "amount_received": one["amount"]}

    def fail(self, refund_id: str) -> None:
        """The payer's bank sends a refund back."""
        next(one for one in self.given_back if one["id"] == refund_id)["status"] = "failed"

    def dispute(self, intent_id: str, status: str) -> None:
        """The holder disputes what they paid, or a dispute goes on."""
        if not self.disputed:
            amount = self.intents[intent_id]["amount"]
            self.disputed.append({"id": "du_1", "payment_intent": intent_id, "amount": amount, "created": 9})
        self.disputed[0]["status"] = status

    def kept_minor(self, intent_id: str) -> int:
        """What is left of a payment after refunds and lost disputes."""
        left: int = self.intents[intent_id]["amount_received"]
        left -= sum(one["amount"] for one in self.given_back if one["status"] not in _GONE)
        left -= sum(one["amount"] for one in self.disputed if one["status"] == "lost")
        return max(0, left)

    def _once(self, path: str, params: Params, key: str, make: Callable[[], StripeObject]) -> StripeObject:
        check_params("POST", path, params)
        if key not in self.keys:
            self.keys[key] = (params, make())
        known, made = self.keys[key]
        if known != params:
            raise KeyReused("Keys can only be used with the same parameters", status=400)
        return dict(made)

    def _begun(self, params: Params) -> StripeObject:
        name = f"pi_{len(self.intents) + 1}"
        told: dict[str, Any] = {"id": name, "client_secret": f"{name}_secret", "livemode": False, "amount_received": 0}
        self.intents[name] = {**params, **told, "status": "requires_payment_method", "last_payment_error": None}
        return self.intents[name]

    def _refunded(self, params: Params) -> StripeObject:
        left = self.kept_minor(params["payment_intent"])
        amount = params.get("amount", left)
        if not 0 < amount <= left:
            raise Refused(f"Refund amount ({amount}) is greater than unrefunded amount ({left})", status=400)
        number = len(self.given_back) + 1
        made = {**params, "id": f"re_{number}", "amount": amount, "status": "succeeded", "created": number}
        self.given_back.insert(0, made)
        return made
