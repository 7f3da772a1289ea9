"""The billing history of an organisation: GET /v1/billing/history."""

from dataclasses import asdict
from typing import Any, Final

from metering.api.audit import entry_view
from metering.api.models.past import PastQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found
from metering.store.past import CLOSED, Step

_APART: Final = frozenset({"actor", "reason", "request_id", "event", "payment_intent", "refund", "invoice_id"})
"""What is for the audit, which is not for everybody who sees bills, or has a place of its own."""


_PAID: Final = {"paid_minor": "amount_minor", "currency": "currency"}
"""What the wire calls what was paid for credits, and the ledger."""


async def get_past(call: Call) -> Reply:
    """One page, the newest first."""
    query = call.asked(PastQuery)
    org = await found(call, query.org_id)
    steps, following = await call.services.past.page(org.org_id, query.limit, query.cursor)
    return json_reply({"data": [step_view(step) for step in steps], "next_cursor": following})


def step_view(step: Step) -> dict[str, Any]:
    """An entry as the wire shows it: what happened, and not who did it, which the audit tells."""
    told = entry_view(step.entry)
    details = {name: value for name, value in told["details"].items() if name not in _APART}
    details |= {name: step.paid[kept] for name, kept in _PAID.items() if kept in step.paid}
    if step.entry.kind == CLOSED:
        details |= {"features": {name: asdict(one) for name, one in step.features.items()}, "final": step.final}
    return {
        "id": told["id"],
        "at": told["at"],
        "type": told["type"],
        "details": details,
        "stripe_payment_intent_id": step.intent,
        "stripe_refund_id": step.refund,
        "stripe_invoice_id": step.invoice,
    }
