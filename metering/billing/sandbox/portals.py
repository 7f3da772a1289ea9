"""/v1/billing_portal/sessions, and what the payer can do there: https://docs.stripe.com/api/customer_portal/sessions."""

from typing import Any, Final

from metering.billing.sandbox.cards import Card, give_card
from metering.billing.sandbox.changes import end_with_period
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.contracts import LIVE
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import TEXT, Fields, Need
from metering.billing.sandbox.invoices import collect
from metering.billing.sandbox.renewals import wind_up
from metering.billing.sandbox.unbuilt import URL, unbuilt

KIND: Final = "billing_portal.session"
CONFIGURATION: Final = "billing_portal.configuration"


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/billing_portal/sessions. Raises ApiError 400 where no configuration was made before."""
    customer = ctx.need("customer", params["customer"], param="customer")
    session_id = ctx.db.new_id("bps")
    configuration = _configuration(ctx, params.get("configuration"))
    session = {
        "id": session_id,
        "object": KIND,
        "configuration": configuration["id"],
        "created": ctx.now_s,
        "customer": customer["id"],
        "customer_account": None,
        "flow": None,
        "livemode": False,
        "locale": None,
        "on_behalf_of": None,
        "return_url": params.get("return_url") or configuration.get("default_return_url"),
        "url": f"{ctx.base}/p/session/{session_id}",
    }
    ctx.db.put(KIND, session)
    ctx.emit("billing_portal.session.created", session)
    return session


def subscriptions(ctx: Context, session: Obj) -> list[Obj]:
    """Those of the session's customer that run."""
    rows = ctx.db.all("subscription", newest_first=True)
    return [row for row in rows if row["customer"] == session["customer"] and row["status"] in LIVE]


def open_invoices(ctx: Context, session: Obj) -> list[Obj]:
    """What the session's customer owes."""
    rows = ctx.db.all("invoice", newest_first=True)
    return [row for row in rows if row["customer"] == session["customer"] and row["status"] == "open"]


def end_at_period_end(ctx: Context, session: Obj, subscription_id: str, *, wanted: bool) -> None:
    """The payer lets a subscription stop with its period, or takes that back."""
    for subscription in subscriptions(ctx, session):
        if subscription["id"] == subscription_id and subscription["cancel_at_period_end"] != wanted:
            names = ("cancel_at_period_end", "cancel_at", "canceled_at")
            before = {name: subscription[name] for name in names}
            end_with_period(ctx, subscription, wanted=wanted)
            ctx.db.put("subscription", subscription)
            wind_up(ctx.db, subscription)
            ctx.emit("customer.subscription.updated", subscription, before)


def change_card(ctx: Context, session: Obj, card: Card) -> None:
    """The payer gives another card; what is owed is tried again by itself later."""
    give_card(ctx, session["customer"], card)


def pay(ctx: Context, session: Obj, invoice_id: str) -> None:
    """The payer pays what is owed now, with the card there is."""
    for invoice in open_invoices(ctx, session):
        if invoice["id"] == invoice_id:
            collect(ctx, invoice)


def _configuration(ctx: Context, wanted: str | None) -> Obj:
    if wanted:
        return ctx.need(CONFIGURATION, wanted, param="configuration")
    known = ctx.db.all(CONFIGURATION)
    if not known:
        told = (
            "You can't create a portal session in test mode until you save your customer portal settings in test mode,"
            " or make a configuration and name it."
        )
        raise ApiError(told)
    return next((one for one in known if one.get("is_default")), known[0])


ROUTES: Final = (
    Route(
        "POST",
        "/v1/billing_portal/sessions",
        create,
        Fields(
            customer=Need(TEXT),
            configuration=TEXT,
            return_url=URL,
            **unbuilt("after_expiration customer_account flow_data locale on_behalf_of"),
        ),
    ),
)
