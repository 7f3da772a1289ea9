"""A Stripe in memory that charges saved cards: takes, declines and breaks as it is told, and remembers what it took.

It knows what top-ups rely on: a key's first answer, refusals included, is every later one; a payment that was declined
is there all the same; an answer may be lost after the effect. The sandbox speaks Stripe's HTTP; this speaks the verbs,
so that a test can count every call.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from metering.billing.errors import Declined, GatewayError, KeyReused, NotThere, Refused
from metering.billing.gateway import Params, StripeObject
from tests.support.stripe_objects import whole
from tests.support.stripe_schema import check_params
from tests.support.till import Fault


@dataclass(slots=True)
class CardTill:
    """`becomes` is what payments come to: a status of Stripe's, or the code of a refusal. `faults` strike the next
    calls that charge or withdraw, in order; None lets one through. `on_cancel`: what happens just before one withdraws.
    `saved` are methods, the newest first. `unlisted`: no list shows payments yet.
    """

    now_ms: Callable[[], Awaitable[int]]
    becomes: str = "succeeded"
    faults: list[Fault | None] = field(default_factory=list)
    saved: list[str] = field(default_factory=lambda: ["pm_1"])
    chosen: str | None = None
    deleted: bool = False
    unlisted: bool = False
    intents: list[StripeObject] = field(default_factory=list)
    on_cancel: Callable[[], None] | None = None
    asked: dict[str, Params] = field(default_factory=dict)
    answers: dict[str, StripeObject | GatewayError] = field(default_factory=dict)

    def taken(self) -> list[int]:
        """The amounts of the payments that succeeded."""
        return [intent["amount"] for intent in self.intents if intent["status"] == "succeeded"]

    async def customer(self, customer_id: str) -> StripeObject:
        """The one customer there is."""
        if customer_id != "cus_1":
            raise NotThere("No such customer", status=404, code="resource_missing", param="customer")
        if self.deleted:
            return {"id": "cus_1", "object": "customer", "deleted": True}
        return {"id": "cus_1", "object": "customer", "invoice_settings": {"default_payment_method": self.chosen}}

    async def payment_methods(self, customer: str) -> list[StripeObject]:
        """What they saved."""
        return [{"id": name, "object": "payment_method", "customer": customer} for name in self.saved]

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Charge, once a key."""
        check_params("POST", "/v1/payment_intents", params)
        if self.asked.setdefault(key, params) != params:
            raise KeyReused("Keys can only be used with the same parameters", status=400, code="idempotency_error")
        created_s = await self.now_ms() // 1000  # a call takes a while: others look meanwhile, and see nothing yet
        late = self._struck()
        if key not in self.answers:
            self.answers[key] = self._charged(params, created_s)
        if late is not None:
            raise late
        answer = self.answers[key]
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    def _charged(self, params: Params, created_s: int) -> StripeObject | GatewayError:
        declined = self.becomes not in {"succeeded", "processing"}
        status = "requires_payment_method" if declined else self.becomes
        made = whole(
            "payment_intent", id=f"pi_{len(self.intents) + 1}", status=status, amount=params["amount"],
            amount_received=params["amount"] if status == "succeeded" else 0, currency=params["currency"],
            customer=params["customer"], metadata=params["metadata"], created=created_s,
        )  # fmt: skip
        if declined:
            made["last_payment_error"] = {"code": self.becomes}
        self.intents.insert(0, made)
        return Declined("declined", status=402, code=self.becomes, intent_id=made["id"]) if declined else made

    async def cancel_payment_intent(self, intent_id: str) -> StripeObject:
        """Withdraw a payment that waits for somebody."""
        check_params("POST", f"/v1/payment_intents/{intent_id}/cancel", {"cancellation_reason": "abandoned"})
        late = self._struck()
        if self.on_cancel is not None:
            self.on_cancel()
        intent = await self.payment_intent(intent_id)
        if intent["status"] in {"succeeded", "processing", "canceled"}:
            raise Refused("You cannot cancel this PaymentIntent", status=400, code="payment_intent_unexpected_state")
        intent["status"] = "canceled"
        if late is not None:
            raise late
        return intent

    def statuses(self) -> list[str]:
        """Those of all payments, the newest first."""
        return [intent["status"] for intent in self.intents]

    def arrive(self, status: str = "succeeded", *, was: str = "processing") -> None:
        """What was on its way comes in, or does not; what `was` waiting for somebody is paid by hand."""
        for intent in self.intents:
            if intent["status"] == was:
                intent |= {"status": status, "amount_received": intent["amount"] if status == "succeeded" else 0}

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        return next(intent for intent in self.intents if intent["id"] == intent_id)

    async def payment_intents(self, customer: str, *, since_s: int) -> list[StripeObject]:
        """Those of the customer."""
        if self.unlisted:
            return []
        return [one for one in self.intents if one["customer"] == customer and one["created"] >= since_s]

    async def refunds(self, intent_id: str) -> list[StripeObject]:
        """None were made."""
        return []

    async def disputes(self, intent_id: str) -> list[StripeObject]:
        """None were begun."""
        return []

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """None is made here."""
        raise AssertionError("who tops up has a customer")

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """None is begun here."""
        raise AssertionError("nobody is there to check out")

    async def create_refund(self, params: Params, *, key: str) -> StripeObject:
        """None is made here."""
        raise AssertionError("nothing is given back")

    def _struck(self) -> GatewayError | None:
        """Raise the next fault; give it back where it comes after the effect."""
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            return fault[1]
        if fault is not None:
            raise fault
        return None
