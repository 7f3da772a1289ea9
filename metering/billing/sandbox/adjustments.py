"""/v1/billing/meter_event_adjustments: https://docs.stripe.com/api/billing/meter-event-adjustment."""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import Fields, Need, OneOf, Text
from metering.billing.sandbox.meter_events import KNOWN_S, REFUSED
from metering.billing.sandbox.metered import TAKEN


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meter_event_adjustments: an event counts no more; invoices that are final stay as they are.

    Its identifier stays known. Only events that came within the last 24 hours can be taken back.
    """
    identifier = params["cancel"]["identifier"]
    event = ctx.db.get(TAKEN, identifier)
    if event is None or event["event_name"] != params["event_name"]:
        told = f"No such meter event: '{identifier}'"
        raise ApiError(told, code="resource_missing", param="cancel[identifier]")
    if event["created"] < ctx.now_s - KNOWN_S:
        raise ApiError("A meter event can be cancelled within 24 hours of its receipt.", param="cancel[identifier]")
    ctx.db.delete(TAKEN, identifier)
    row = {"event_name": event["event_name"], "identifier": identifier, "code": "cancelled", "late": True}
    ctx.db.put(REFUSED, {"id": identifier, **row, "message": "Taken back by an adjustment"})
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": event["event_name"],
        "livemode": False,
        "status": "complete",
        "type": "cancel",
    }


ROUTES: Final = (
    Route(
        "POST",
        "/v1/billing/meter_event_adjustments",
        create,
        Fields(
            event_name=Need(Text(100)),
            type=Need(OneOf("cancel")),
            cancel=Need(Fields(identifier=Need(Text(100)))),
        ),
    ),
)
