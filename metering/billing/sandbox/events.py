"""Events: both kinds of one change, kept for /v1/events and /v2/core/events and for delivery."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from metering.billing.gateway import API_VERSION
from metering.billing.sandbox import mail
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.errors import ApiError, missing
from metering.billing.sandbox.fields import COUNT, CREATED, FLAG, LIST, TEXT, Fields, Many, Need
from metering.billing.sandbox.lists import page, within
from metering.billing.sandbox.unbuilt import unbuilt

SNAPSHOT: Final = "event"
THIN: Final = "v2.core.event"
"""Their kinds in the database."""

KEPT_S: Final = 30 * 86_400
"""https://docs.stripe.com/api/events: events are kept 30 days."""

_PLACES: Final = {
    "billing.meter": "billing/meters",
    "billing_portal.configuration": "billing_portal/configurations",
    "checkout.session": "checkout/sessions",
    "invoiceitem": "invoiceitems",
    "test_helpers.test_clock": "test_helpers/test_clocks",
}

_WRITE_ONLY: Final = "billing_portal.session"
"""Nobody can read one again, so a thin event about one names no object."""


@dataclass(slots=True)
class Recorder:
    """Records what happens in one request or at one moment."""

    db: Db
    now_s: int
    request: Obj | None = None
    """`{"id", "idempotency_key"}`; None for what happens by itself."""

    def emit(self, kind: str, obj: Obj, previous: Obj | None = None) -> Obj:
        """Record that `obj` is now so; the snapshot event. `previous`: the old values of what was updated."""
        data: Obj = {"object": obj} if previous is None else {"object": obj, "previous_attributes": previous}
        event: Obj = {
            "id": self.db.new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now_s,
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": self.request or {"id": None, "idempotency_key": None},
            "type": kind,
        }
        self.db.put(SNAPSHOT, event, at=self.now_s)
        mail.post(self.db, event, self.now_s)
        self.emit_thin(f"v1.{kind}", obj, snapshot=event["id"])
        return event

    def emit_thin(
        self, kind: str, related: Obj | None = None, data: Obj | None = None, snapshot: str | None = None
    ) -> Obj:
        """Record a thin event alone."""
        told = {
            "id": self.db.new_id("evt_test"),
            "object": "v2.core.event",
            "type": kind,
            "created": iso(self.now_s),
            "livemode": False,
            "related_object": related_object(related) if related and related["object"] != _WRITE_ONLY else None,
            "data": data,
            "snapshot_event": snapshot,
        }
        event = {name: value for name, value in told.items() if value is not None}
        self.db.put(THIN, event, at=self.now_s)
        mail.post(self.db, event, self.now_s)
        return event


def related_object(obj: Obj) -> Obj:
    """How a thin event names what it is about."""
    place = _PLACES.get(obj["object"], f"{obj['object']}s")
    return {"id": obj["id"], "type": obj["object"], "url": f"/v1/{place}/{obj['id']}"}


def iso(now_s: int) -> str:
    """A moment as /v2 writes it."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def list_events(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/events: the newest first, those of the last 30 days."""
    if params.get("type") and params.get("types"):
        raise ApiError("You may pass only one of type and types.", param="types")
    kinds: Iterable[str] | None = [params["type"]] if params.get("type") else params.get("types")
    rows = ctx.db.of(SNAPSHOT, "", start=ctx.now_s - KEPT_S)
    known = [row for row in reversed(rows) if kinds is None or _fits(row["type"], kinds)]
    return page(ctx, within(known, params.get("created")), params)


def retrieve_event(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/events/{id}."""
    del params
    event = ctx.need(SNAPSHOT)
    if event["created"] < ctx.now_s - KEPT_S:
        raise missing("event", ctx.id)
    return event


def list_thin_events(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v2/core/events: the newest first, those of the last 30 days, all on one page."""
    since = _moment((params.get("created") or {}).get("gte", ""))
    rows = reversed(list(ctx.db.of(THIN, "", start=ctx.now_s - KEPT_S)))
    wanted = [row for row in rows if row["type"] in params["types"] and _moment(row["created"]) >= since]
    return {"data": wanted, "next_page_url": None, "previous_page_url": None}


def _moment(text: str) -> float:
    """A moment of /v2 in seconds; 0 for none. Raises ApiError 400."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError as error:
        raise ApiError(f"Invalid timestamp: {text}", param="created") from error


def retrieve_thin_event(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v2/core/events/{id}."""
    del params
    return ctx.need(THIN, noun="event")


def _fits(kind: str, wanted: Iterable[str]) -> bool:
    return any(kind == one or (one.endswith("*") and kind.startswith(one[:-1])) for one in wanted)


ROUTES: Final = (
    Route(
        "GET",
        "/v1/events",
        list_events,
        Fields(LIST, created=CREATED, delivery_success=FLAG, type=TEXT, types=Many(TEXT, 20)),
    ),
    Route("GET", "/v1/events/{id}", retrieve_event),
    Route(
        "GET",
        "/v2/core/events",
        list_thin_events,
        Fields(types=Need(Many(TEXT, 20)), created=Fields(gte=TEXT), limit=COUNT, **unbuilt("object_id")),
    ),
    Route("GET", "/v2/core/events/{id}", retrieve_thin_event),
)
