"""/v1/billing_portal/configurations: https://docs.stripe.com/api/customer_portal/configurations."""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import FLAG, LIST, METADATA, TEXT, Field, Fields, Many, Need, OneOf
from metering.billing.sandbox.lists import page
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.unbuilt import URL, No, unbuilt

KIND: Final = "billing_portal.configuration"

_OFF: Final[Obj] = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "options": []},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_pause": {"duration": {"interval_options": [], "type": "indefinite"}, "enabled": False},
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "products": None,
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}
"""What a portal offers unless it is told to: nothing."""


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing_portal/configurations: the first is the default."""
    configuration = {
        "id": ctx.db.new_id("bpc"),
        "object": KIND,
        "active": True,
        "application": None,
        "business_profile": {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
        "created": ctx.now_s,
        "default_return_url": params.get("default_return_url"),
        "features": _features(_OFF, params["features"]),
        "is_default": not ctx.db.all(KIND),
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": merged({}, params.get("metadata") or {}),
        "name": params.get("name"),
        "updated": ctx.now_s,
    }
    ctx.db.put(KIND, configuration)
    ctx.emit("billing_portal.configuration.created", configuration)
    return configuration


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/billing_portal/configurations/{id}."""
    del params
    return ctx.need(KIND)


def update(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing_portal/configurations/{id}."""
    configuration = ctx.need(KIND)
    if params.get("active") is False and configuration["is_default"]:
        raise ApiError("You can't deactivate the default configuration.", param="active")
    old = dict(configuration)
    configuration |= {name: params[name] for name in ("active", "default_return_url", "name") if name in params}
    configuration["features"] = _features(configuration["features"], params.get("features") or {})
    if "metadata" in params:
        configuration["metadata"] = merged(configuration["metadata"], params["metadata"])
    configuration["updated"] = ctx.now_s
    ctx.db.put(KIND, configuration)
    before = {name: value for name, value in old.items() if configuration[name] != value}
    ctx.emit("billing_portal.configuration.updated", configuration, before)
    return configuration


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/billing_portal/configurations: the newest first."""
    rows = ctx.db.all(KIND, newest_first=True)
    for name in ("active", "is_default"):
        if params.get(name) is not None:
            rows = [row for row in rows if row[name] == params[name]]
    return page(ctx, rows, params)


def _features(old: Obj, told: Obj) -> Obj:
    """The features as they were, and what is told of each in its place."""
    return {name: {**feature, **(told.get(name) or {})} for name, feature in old.items()}


_UPDATES: Final = OneOf("address", "email", "name", "phone", "shipping", "tax_id")
_FEATURES: Final = Fields(
    customer_update=Fields(allowed_updates=Many(_UPDATES), enabled=FLAG),
    invoice_history=Fields(enabled=Need(FLAG)),
    payment_method_update=Fields(enabled=Need(FLAG), **unbuilt("payment_method_configuration")),
    subscription_cancel=Fields(
        enabled=FLAG,
        mode=OneOf("at_period_end", "immediately"),
        proration_behavior=OneOf("none"),
        **unbuilt("cancellation_reason"),
    ),
    subscription_pause=Fields(enabled=No(), **unbuilt("duration")),
    subscription_update=Fields(
        enabled=No(),
        **unbuilt("billing_cycle_anchor default_allowed_updates products proration_behavior schedule_at_period_end"),
        **unbuilt("trial_update_behavior"),
    ),
)
_FIELDS: Final[dict[str, Field]] = {
    "default_return_url": URL,
    "metadata": METADATA,
    "name": TEXT,
    **unbuilt("business_profile login_page"),
}

ROUTES: Final = (
    Route("POST", "/v1/billing_portal/configurations", create, Fields(_FIELDS, features=Need(_FEATURES))),
    Route("GET", "/v1/billing_portal/configurations", list_all, Fields(LIST, active=FLAG, is_default=FLAG)),
    Route("GET", "/v1/billing_portal/configurations/{id}", retrieve),
    Route("POST", "/v1/billing_portal/configurations/{id}", update, Fields(_FIELDS, active=FLAG, features=_FEATURES)),
)
