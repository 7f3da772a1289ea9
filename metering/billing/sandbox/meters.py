"""/v1/billing/meters and what they add up: https://docs.stripe.com/api/billing/meter."""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import COUNT, LIST, TEXT, Fields, Need, OneOf, Text
from metering.billing.sandbox.lists import page
from metering.billing.sandbox.metered import total, worth

KIND: Final = "billing.meter"

_MINUTE_S: Final = 60
_WINDOWS_S: Final = {"hour": 3600, "day": 86_400}


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meters: one active meter an event name."""
    for other in ctx.db.all(KIND):
        if other["event_name"] == params["event_name"] and other["status"] == "active":
            told = f"A meter with the event name {params['event_name']} is active already: {other['id']}."
            raise ApiError(told, code="resource_already_exists", param="event_name")
    mapping = params.get("customer_mapping") or {"type": "by_id", "event_payload_key": "stripe_customer_id"}
    meter = {
        "id": ctx.db.new_id("mtr_test"),
        "object": KIND,
        "created": ctx.now_s,
        "customer_mapping": mapping,
        "default_aggregation": params["default_aggregation"],
        "display_name": params["display_name"],
        "event_name": params["event_name"],
        "event_time_window": params.get("event_time_window"),
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": ctx.now_s,
        "value_settings": params.get("value_settings") or {"event_payload_key": "value"},
    }
    ctx.db.put(KIND, meter)
    ctx.emit("billing.meter.created", meter)
    return meter


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/billing/meters/{id}."""
    del params
    return ctx.need(KIND)


def update(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meters/{id}: nothing but what it is called can be changed."""
    meter = ctx.need(KIND)
    before = {"display_name": meter["display_name"]}
    meter |= {"display_name": params["display_name"], "updated": ctx.now_s}
    ctx.db.put(KIND, meter)
    ctx.emit("billing.meter.updated", meter, before)
    return meter


def deactivate(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meters/{id}/deactivate: it takes no more events."""
    del params
    return _set_status(ctx, "inactive", "billing.meter.deactivated")


def reactivate(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meters/{id}/reactivate."""
    del params
    return _set_status(ctx, "active", "billing.meter.reactivated")


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/billing/meters: the newest first."""
    rows = [row for row in ctx.db.all(KIND, newest_first=True) if params.get("status") in {None, row["status"]}]
    return page(ctx, rows, params)


def list_summaries(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/billing/meters/{id}/event_summaries: at whole minutes (hours, days), the newest first.

    Times without an event have no row. What came less than the configured lag ago is not known yet.
    """
    meter = ctx.need(KIND)
    window = params.get("value_grouping_window")
    step = _WINDOWS_S[window] if window else _MINUTE_S
    start, end = params["start_time"], params["end_time"]
    for name in ("start_time", "end_time"):
        if params[name] % step:
            told = f"The {name} must be aligned with {window or 'minute'} boundaries."
            raise ApiError(told, param=name)
    if start >= end:
        raise ApiError("The end_time must be after the start_time.", param="end_time")
    spans = [(moment, moment + step) for moment in range(start, end, step)] if window else [(start, end)]
    rows = [_summary(ctx, meter, params["customer"], span) for span in reversed(spans)]
    return page(ctx, [row for row in rows if row is not None], params)


def _summary(ctx: Context, meter: Obj, customer: str, span: tuple[int, int]) -> Obj | None:
    known = worth(ctx.db, meter, customer, *span, received_by=ctx.now_s - ctx.options.summary_lag_s)
    if not known:
        return None
    return {
        "id": f"mtrusg_test_{meter['id'][-8:]}{customer[-8:]}{span[0]}{span[1]}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(total(meter, known)),
        "end_time": span[1],
        "livemode": False,
        "meter": meter["id"],
        "start_time": span[0],
    }


def _set_status(ctx: Context, status: str, kind: str) -> Obj:
    meter = ctx.need(KIND)
    if meter["status"] == status:
        raise ApiError(f"The meter is {status} already.", param="id")
    if status == "active":
        for other in ctx.db.all(KIND):
            if other["event_name"] == meter["event_name"] and other["status"] == "active":
                raise ApiError(f"Another meter of that event name is active: {other['id']}.", param="id")
    meter |= {"status": status, "updated": ctx.now_s}
    meter["status_transitions"] = {"deactivated_at": ctx.now_s if status == "inactive" else None}
    ctx.db.put(KIND, meter)
    ctx.emit(kind, meter)
    return meter


ROUTES: Final = (
    Route(
        "POST",
        "/v1/billing/meters",
        create,
        Fields(
            customer_mapping=Fields(type=Need(OneOf("by_id")), event_payload_key=Need(Text(100))),
            default_aggregation=Need(Fields(formula=Need(OneOf("count", "last", "sum")))),
            display_name=Need(Text(250)),
            event_name=Need(Text(100)),
            event_time_window=OneOf("day", "hour"),
            value_settings=Fields(event_payload_key=Need(Text(100))),
        ),
    ),
    Route("GET", "/v1/billing/meters", list_all, Fields(LIST, status=OneOf("active", "inactive"))),
    Route("GET", "/v1/billing/meters/{id}", retrieve),
    Route("POST", "/v1/billing/meters/{id}", update, Fields(display_name=Need(Text(250)))),
    Route("POST", "/v1/billing/meters/{id}/deactivate", deactivate),
    Route("POST", "/v1/billing/meters/{id}/reactivate", reactivate),
    Route(
        "GET",
        "/v1/billing/meters/{id}/event_summaries",
        list_summaries,
        Fields(
            LIST,
            customer=Need(TEXT),
            start_time=Need(COUNT),
            end_time=Need(COUNT),
            value_grouping_window=OneOf("day", "hour"),
        ),
    ),
)
