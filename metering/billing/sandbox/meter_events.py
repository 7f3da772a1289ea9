"""/v1/billing/meter_events: https://docs.stripe.com/api/billing/meter-event.

What is wrong with the event itself is refused at once. Whether its customer exists and its meter is active Stripe says
later, in a thin event: https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#handle-errors.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.cycles import DAY_S
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import COUNT, METADATA, Fields, Need, Text
from metering.billing.sandbox.jobs import JOBS, Job
from metering.billing.sandbox.metered import keep

BEHIND_MAX_S: Final = 35 * DAY_S
AHEAD_MAX_S: Final = 5 * 60
KNOWN_S: Final = DAY_S
"""How long an identifier is known: Stripe says at least 24 hours, so that nobody may rely on more."""

DIGITS_MAX: Final = 15
SAMPLES_MAX: Final = 5

REFUSED: Final = "sandbox.rejected"
"""Events that do not count: event name, identifier, code and message; `late` where Stripe answered 200 before."""

_IDENTIFIER: Final = "sandbox.identifier"
_REPORT: Final = "sandbox.report"
_WHOLE: Final = re.compile(r"-?[0-9]+")

_WORDS: Final = {
    "archived_meter": "The meter is inactive",
    "meter_event_customer_not_found": "There is no such customer",
    "no_meter": "No active meter has this event name",
}


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing/meter_events."""
    identifier = params.get("identifier") or ctx.db.new_id("mtr_event")
    timestamp = ctx.now_s if params.get("timestamp") is None else params["timestamp"]
    meter = meter_of(ctx.db, params["event_name"])
    event = {
        "object": "billing.meter_event",
        "created": ctx.now_s,
        "event_name": params["event_name"],
        "identifier": identifier,
        "livemode": False,
        "payload": params["payload"],
        "timestamp": timestamp,
    }
    _check_identifier(ctx, identifier)
    _check_time(ctx.now_s, timestamp)
    customer, value = _payload(params["payload"], meter)
    ctx.db.put(_IDENTIFIER, {"id": identifier, "at": ctx.now_s}, at=ctx.now_s)
    ctx.db.forget(_IDENTIFIER, before=ctx.now_s - KNOWN_S)
    code = _fault(ctx.db, meter, customer)
    if code:
        _refuse_later(ctx, meter, event, code)
    elif meter:
        keep(ctx.db, meter, customer, value, event)
    return event


def meter_of(db: Db, event_name: str) -> Obj | None:
    """The meter of an event name; an active one where there are several."""
    found = [row for row in db.all("billing.meter") if row["event_name"] == event_name]
    return max(found, key=lambda row: row["status"] == "active", default=None)


def lane(ctx: Context, params: dict[str, Any]) -> str | None:
    """One call a customer and meter at a time: https://docs.stripe.com/rate-limits."""
    meter = meter_of(ctx.db, params["event_name"])
    if meter is None:
        return None
    return f"{meter['id']} {params['payload'].get(meter['customer_mapping']['event_payload_key'], '')}"


def _check_identifier(ctx: Context, identifier: str) -> None:
    known = ctx.db.get(_IDENTIFIER, identifier)
    if known is not None and known["at"] > ctx.now_s - KNOWN_S:
        told = f"An event already exists with identifier {identifier}."
        raise ApiError(told, code="duplicate_meter_event", param="identifier")


def _check_time(now_s: int, timestamp: int) -> None:
    if timestamp < now_s - BEHIND_MAX_S:
        told = (
            "The event timestamp cannot be more than 35 days in past."
            f" Expected a timestamp greater than or equal to {now_s - BEHIND_MAX_S}."
        )
        raise ApiError(told, code="timestamp_too_far_in_past", param="timestamp")
    if timestamp > now_s + AHEAD_MAX_S:
        told = (
            "The event timestamp cannot be more than 5 minutes in the future."
            f" Expected a timestamp less than or equal to {now_s + AHEAD_MAX_S}."
        )
        raise ApiError(told, code="timestamp_in_future", param="timestamp")


def _payload(payload: dict[str, str], meter: Obj | None) -> tuple[str, int]:
    """Customer and value. Raises ApiError 400."""
    keys = (
        (meter["customer_mapping"]["event_payload_key"], meter["value_settings"]["event_payload_key"])
        if meter
        else ("stripe_customer_id", "value")
    )
    for key in keys:
        if not payload.get(key):
            raise ApiError(f"The payload lacks {key}.", code="parameter_missing", param=f"payload[{key}]")
    value = payload[keys[1]]
    if not _WHOLE.fullmatch(value):
        told = f"The value {value!r} is no whole number."
        raise ApiError(told, code="meter_event_invalid_value", param=f"payload[{keys[1]}]")
    if len(value.lstrip("-").lstrip("0")) > DIGITS_MAX:
        told = f"The value has more than {DIGITS_MAX} digits."
        raise ApiError(told, code="meter_event_value_too_many_digits", param=f"payload[{keys[1]}]")
    return payload[keys[0]], int(value)


def _fault(db: Db, meter: Obj | None, customer: str) -> str:
    """Why an event that was taken will not count; '' where it will."""
    if meter is None:
        return "no_meter"
    if meter["status"] != "active":
        return "archived_meter"
    known = db.get("customer", customer)
    return "" if known and not known.get("deleted") else "meter_event_customer_not_found"


def refused(ctx: Context, params: dict[str, Any], error: ApiError) -> None:
    """Note for the audit what was refused at once."""
    row = {"event_name": params["event_name"], "identifier": params.get("identifier"), "code": error.error.get("code")}
    ctx.db.put(REFUSED, {"id": ctx.db.new_id("no"), **row, "late": False, "message": str(error)})


def _refuse_later(ctx: Context, meter: Obj | None, event: Obj, code: str) -> None:
    """Note it, and let it be reported at the end of the window that it came in."""
    row = {"event_name": event["event_name"], "identifier": event["identifier"], "code": code, "late": True}
    ctx.db.put(REFUSED, {"id": ctx.db.new_id("refused"), **row, "message": _WORDS[code]})
    name = meter["id"] if meter else ""
    window = ctx.options.report_window_s
    start = ctx.now_s // window * window
    report_id = f"{name} {start}"
    report = ctx.db.get(_REPORT, report_id) or {"id": report_id, "meter": name, "start": start, "rows": []}
    report |= {"due": start + window, "rows": [*report["rows"], row]}
    ctx.db.put(_REPORT, report)


def _due(db: Db) -> int | None:
    return min((int(row["due"]) for row in db.all(_REPORT)), default=None)


def _report(ctx: Context) -> None:
    """Tell what was wrong in the windows that are over: a thin event a meter, with some identifiers as samples."""
    for report in ctx.db.all(_REPORT):
        if report["due"] <= ctx.now_s:
            ctx.db.delete(_REPORT, report["id"])
            meter = ctx.db.get("billing.meter", report["meter"]) if report["meter"] else None
            kind = "v1.billing.meter.error_report_triggered" if meter else "v1.billing.meter.no_meter_found"
            ctx.emit_thin(kind, meter, _data(report))


def _data(report: Obj) -> Obj:
    codes: dict[str, list[Obj]] = {}
    for row in report["rows"]:
        codes.setdefault(row["code"], []).append(row)
    kinds = [
        {
            "code": code,
            "error_count": len(rows),
            "sample_errors": [
                {"error_message": _WORDS[code], "request": {"identifier": row["identifier"]}}
                for row in rows[:SAMPLES_MAX]
            ],
        }
        for code, rows in codes.items()
    ]
    count = len(report["rows"])
    return {
        "developer_message_summary": f"There is {count} invalid event"
        if count == 1
        else f"There are {count} invalid events",
        "reason": {"error_count": count, "error_types": kinds},
        "validation_start": _iso(report["start"]),
        "validation_end": _iso(report["due"]),
    }


def _iso(moment_s: int) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


JOBS.append(Job(_due, _report))

ROUTES: Final = (
    Route(
        "POST",
        "/v1/billing/meter_events",
        create,
        Fields(event_name=Need(Text(100)), identifier=Text(100), payload=Need(METADATA), timestamp=COUNT),
        lane=lane,
        refused=refused,
    ),
)
