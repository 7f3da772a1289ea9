"""Paying for credits, and giving money back: /billing/create-payment-intent, confirm-payment, refund."""

from hashlib import blake2b
from typing import Final

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.payments import ConfirmRequest, PaymentRequest, RefundRequest
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found
from metering.billing.refunds import RefundOrder
from metering.billing.sales import SUCCEEDED
from metering.errors import OrgNotFound
from metering.log import request_id
from metering.store.orgs import OrgChange

_NAME_BYTES: Final = 20


async def create_payment(call: Call) -> Reply:
    """Begin a payment for the organisation in the body; one that is unknown is created as by an event."""
    body, services = call.sent(PaymentRequest), call.services
    org_id = visible(call.caller, body.org_id)
    shop = services.at_stripe().credits
    shop.package(body.credit_amount)
    create = services.auto_create_orgs
    org, _ = await services.orgs.update(org_id, OrgChange(), actor=call.caller.subject, create=create)
    if org is None:
        raise OrgNotFound
    begun = await shop.begin(org, body.credit_amount, call.name())
    told = {"payment_intent_id": begun.intent_id, "client_secret": begun.client_secret, "credits": begun.sale.credits}
    return json_reply(told | {"amount": begun.sale.amount_minor, "currency": begun.sale.currency}, 201)


async def confirm_payment(call: Call) -> Reply:
    """Credit a payment of the organisation in the body, if it succeeded."""
    body = call.sent(ConfirmRequest)
    org = await found(call, body.org_id)
    settled = await call.services.at_stripe().credits.confirm(org, body.payment_intent_id)
    paid = settled.status == SUCCEEDED
    added = settled.sale.credits if paid else 0
    told = {"status": settled.status, "credits_added": added, "duplicate": paid and not settled.made}
    return json_reply(told | {"balance": settled.balance})


async def refund_payment(call: Call) -> Reply:
    """Give money of a payment back, of whichever organisation it is."""
    body = call.sent(RefundRequest)
    named = body.id or call.idempotency_key
    if named is None:
        raise invalid([fault("", "idempotency-key", "a refund needs an Idempotency-Key header, or an `id`")])
    order = RefundOrder(
        body.payment_intent_id, body.amount, body.reason, body.allow_negative, _name(body.payment_intent_id, named),
        call.caller.subject, request_id.get(),
    )  # fmt: skip
    made = await call.services.at_stripe().credits.refund(order)
    told = {"refund_id": made.refund_id, "status": made.status, "amount": made.amount_minor}
    sale = made.settled.sale
    told |= {"currency": sale.currency, "org_id": sale.org_id, "credits_removed": made.credits_removed}
    return json_reply(told | {"credits_spent": made.credits_spent, "balance": made.settled.balance}, 201)


def _name(intent_id: str, named: str) -> str:
    """A refund's name at Stripe: one id may be used for refunds of several payments."""
    return blake2b(f"{intent_id}\n{named}".encode(), digest_size=_NAME_BYTES).hexdigest()
