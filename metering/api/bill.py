"""What happened to plan, bills and credits of an organisation: GET /v1/billing/history."""

from typing import Any, Final

from metering.api.audit import entry_view
from metering.api.models.bill import HistoryOfBillsQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found
from metering.store.trail import Entry

_WHO: Final = ("reason", "request_id", "payment_intent", "refund")
"""What stands elsewhere: in the audit, which is not for everybody who sees bills, or in a field of its own."""


async def get_history(call: Call) -> Reply:
    """One page of what happened to plan, bills and credits of one organisation."""
    query = call.asked(HistoryOfBillsQuery)
    org = await found(call, query.org_id)
    entries, following = await call.services.trail.back(org.org_id, query.limit, query.cursor)
    return json_reply({"data": [_event(entry) for entry in entries], "next_cursor": following})


def _event(entry: Entry) -> dict[str, Any]:
    shown = entry_view(entry)
    details = {name: value for name, value in shown["details"].items() if name not in _WHO}
    return {
        **{name: shown[name] for name in ("id", "at", "type")},
        "stripe_payment_intent_id": entry.fields.get("payment_intent"),
        "stripe_refund_id": entry.fields.get("refund"),
        "details": details,
    }
