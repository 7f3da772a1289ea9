"""Who is told of events: /v1/webhook_endpoints and /v2/core/event_destinations.

https://docs.stripe.com/api/webhook_endpoints, https://docs.stripe.com/api/v2/core/event_destinations
"""

import secrets
from typing import Any, Final

from metering.billing.gateway import API_VERSION
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.events import iso
from metering.billing.sandbox.fields import COUNT, FLAG, LIST, METADATA, TEXT, Field, Fields, Many, Need, OneOf
from metering.billing.sandbox.lists import page
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.unbuilt import URL, No, Only, unbuilt

ENDPOINT: Final = "webhook_endpoint"
DESTINATION: Final = "v2.core.event_destination"
SECRET: Final = "sandbox.secret"  # noqa: S105 - the name of a kind
_TELL_SECRET: Final = "webhook_endpoint.signing_secret"  # noqa: S105 - the name of a field
_TELL_URL: Final = "webhook_endpoint.url"


def create_endpoint(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/webhook_endpoints: the only answer that tells the secret."""
    endpoint = {
        "id": ctx.db.new_id("we"),
        "object": ENDPOINT,
        "api_version": params.get("api_version"),
        "application": None,
        "created": ctx.now_s,
        "description": params.get("description"),
        "enabled_events": params["enabled_events"],
        "livemode": False,
        "metadata": merged({}, params.get("metadata") or {}),
        "status": "enabled",
        "url": params["url"],
    }
    ctx.db.put(ENDPOINT, endpoint)
    return {**endpoint, "secret": _new_secret(ctx, endpoint["id"])}


def retrieve_endpoint(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/webhook_endpoints/{id}."""
    del params
    return ctx.need(ENDPOINT)


def update_endpoint(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/webhook_endpoints/{id}: its version stays as it was made."""
    endpoint = ctx.need(ENDPOINT)
    endpoint |= {name: params[name] for name in ("description", "enabled_events", "url") if name in params}
    if "metadata" in params:
        endpoint["metadata"] = merged(endpoint["metadata"], params["metadata"])
    if params.get("disabled") is not None:
        endpoint["status"] = "disabled" if params["disabled"] else "enabled"
    ctx.db.put(ENDPOINT, endpoint)
    return endpoint


def list_endpoints(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/webhook_endpoints: the newest first."""
    return page(ctx, ctx.db.all(ENDPOINT, newest_first=True), params)


def delete_endpoint(ctx: Context, params: dict[str, Any]) -> Obj:
    """DELETE /v1/webhook_endpoints/{id}."""
    del params
    endpoint = ctx.need(ENDPOINT)
    ctx.db.delete(ENDPOINT, endpoint["id"])
    return {"id": endpoint["id"], "object": ENDPOINT, "deleted": True}


def create_destination(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v2/core/event_destinations: address and secret are told only where `include` asks for them."""
    if not params.get("webhook_endpoint"):
        raise ApiError("Missing required param: webhook_endpoint.", code="parameter_missing", param="webhook_endpoint")
    snapshots = params["event_payload"] == "snapshot"
    destination = {
        "id": ctx.db.new_id("ed_test"),
        "object": DESTINATION,
        "created": iso(ctx.now_s),
        "description": params.get("description") or "",
        "enabled_events": params["enabled_events"],
        "event_payload": params["event_payload"],
        "events_from": ["self"],
        "livemode": False,
        "metadata": merged({}, params.get("metadata") or {}),
        "name": params["name"],
        "snapshot_api_version": (params.get("snapshot_api_version") or API_VERSION) if snapshots else None,
        "status": "enabled",
        "type": "webhook_endpoint",
        "updated": iso(ctx.now_s),
        "webhook_endpoint": {"url": params["webhook_endpoint"]["url"]},
    }
    destination = {name: value for name, value in destination.items() if value is not None}
    ctx.db.put(DESTINATION, destination)
    secret = _new_secret(ctx, destination["id"])
    return _shown(destination, params.get("include") or [], secret)


def retrieve_destination(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v2/core/event_destinations/{id}."""
    return _shown(ctx.need(DESTINATION), params.get("include") or [])


def list_destinations(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v2/core/event_destinations: all on one page."""
    rows = ctx.db.all(DESTINATION, newest_first=True)
    return {
        "data": [_shown(row, params.get("include") or []) for row in rows],
        "next_page_url": None,
        "previous_page_url": None,
    }


def delete_destination(ctx: Context, params: dict[str, Any]) -> Obj:
    """DELETE /v2/core/event_destinations/{id}."""
    del params
    destination = ctx.need(DESTINATION)
    ctx.db.delete(DESTINATION, destination["id"])
    return {"id": destination["id"], "object": DESTINATION}


def _new_secret(ctx: Context, owner: str) -> str:
    secret = f"whsec_{secrets.token_urlsafe(32)}"
    ctx.db.put(SECRET, {"id": owner, "secrets": [secret]})
    return secret


def _shown(destination: Obj, include: list[str], secret: str = "") -> Obj:
    """A destination with those of its secrets that were asked for, and told."""
    told = {"signing_secret": secret} if secret and _TELL_SECRET in include else {}
    told |= {"url": destination["webhook_endpoint"]["url"]} if _TELL_URL in include else {}
    return {**destination, "webhook_endpoint": told}


_INCLUDE: Final = Many(OneOf(_TELL_SECRET, _TELL_URL))
_SHOW: Final = Many(OneOf(_TELL_URL))
_ENDPOINT: Final[dict[str, Field]] = {"description": TEXT, "metadata": METADATA}

ROUTES: Final = (
    Route(
        "POST",
        "/v1/webhook_endpoints",
        create_endpoint,
        Fields(
            _ENDPOINT,
            api_version=Only((API_VERSION,)),
            connect=No(),
            enabled_events=Need(Many(TEXT)),
            url=Need(URL),
        ),
    ),
    Route("GET", "/v1/webhook_endpoints", list_endpoints, Fields(LIST)),
    Route("GET", "/v1/webhook_endpoints/{id}", retrieve_endpoint),
    Route(
        "POST",
        "/v1/webhook_endpoints/{id}",
        update_endpoint,
        Fields(_ENDPOINT, disabled=FLAG, enabled_events=Many(TEXT), url=URL),
    ),
    Route("DELETE", "/v1/webhook_endpoints/{id}", delete_endpoint),
    Route(
        "POST",
        "/v2/core/event_destinations",
        create_destination,
        Fields(
            description=TEXT,
            enabled_events=Need(Many(TEXT)),
            event_payload=Need(OneOf("snapshot", "thin")),
            include=_INCLUDE,
            metadata=METADATA,
            name=Need(TEXT),
            snapshot_api_version=Only((API_VERSION,)),
            type=Need(Only(("webhook_endpoint",))),
            webhook_endpoint=Fields(url=Need(URL)),
            **unbuilt("amazon_eventbridge azure_event_grid events_from"),
        ),
    ),
    Route("GET", "/v2/core/event_destinations", list_destinations, Fields(include=_SHOW, limit=COUNT)),
    Route("GET", "/v2/core/event_destinations/{id}", retrieve_destination, Fields(include=_SHOW)),
    Route("DELETE", "/v2/core/event_destinations/{id}", delete_destination),
)
