"""The pages that payers see: checkout, portal, the form for one payment. They decide there; webhooks alone tell of it.

https://docs.stripe.com/payments/checkout, https://docs.stripe.com/customer-management
"""

from collections.abc import Callable
from typing import Final

from metering.billing.sandbox import checkouts, methods, payments, portals
from metering.billing.sandbox.amounts import written
from metering.billing.sandbox.audit_page import moment
from metering.billing.sandbox.cards import Card, card_of
from metering.billing.sandbox.checkout_tax import PERCENT
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.contracts import last_end
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.markup import Html, button, joined, link, page, table, tag

CHECKOUT: Final = "/c/pay/"
PORTAL: Final = "/p/session/"
PAY: Final = "/pay/"
"""Stands for the payment form that a page of the seller's would have: https://docs.stripe.com/payments/elements."""

TAXED: Final = "taxed"
"""The button of a payer from where tax is due."""

NO_BUTTON: Final = "There is no such button."

_CARDS: Final = {"pay": Card.GOOD, "decline": Card.BAD, "3ds": Card.ASKS}


def checkout_page(session: Obj, error: str = "") -> bytes:
    """What is bought, and the buttons that decide how it ends."""
    lines = [
        (line["description"], line["quantity"] or "by usage", written(line["amount_total"], line["currency"]))
        for line in session["line_items"]["data"]
    ]
    bought = "What you buy" if session["mode"] == "payment" else "What you subscribe to"
    return page(
        "Checkout",
        table(bought, ("price", "quantity", "now"), lines),
        tag("p", f"To pay now: {written(session['amount_total'], session['currency'])}"),
        Html(f'<p class="bad" role="alert">{tag("span", error).text}</p>') if error else "",
        _checkout_buttons(session)
        if session["status"] == "open"
        else tag("p", f"This checkout is {session['status']}."),
    )


def decide(ctx: Context, session: Obj, choice: str) -> str | None:
    """What the payer pressed; where to go next. Raises ApiError for a card that does not pay."""
    if session["status"] != "open":
        raise ApiError(f"This checkout is {session['status']}.")
    if choice == "cancel":
        return str(session["cancel_url"]) if session["cancel_url"] else None
    taxed = choice == TAXED and session["automatic_tax"]["enabled"]
    test = methods.TESTS[0] if taxed else methods.test_of(choice)
    if session["mode"] == "payment" and test is not None:
        checkouts.pay_once(ctx, session, test, PERCENT if taxed else 0)
    elif session["mode"] == "payment" or choice not in _CARDS:
        raise ApiError(NO_BUTTON)
    else:
        checkouts.complete(ctx, session, _CARDS[choice])
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def pay_page(intent: Obj, error: str = "") -> bytes:
    """What is to be paid, and a button for each of Stripe's test methods."""
    here, open_still = PAY + intent["id"], intent["status"].startswith("requires_")
    asked = intent["status"] == "requires_action"
    return page(
        "Payment",
        tag("p", f"{written(intent['amount'], intent['currency'])}: {intent['status']}."),
        Html(f'<p class="bad" role="alert">{tag("span", error).text}</p>') if error else "",
        joined(button(here, "It is me", choice="yes"), button(here, "It is not me", choice="no")) if asked else "",
        joined(*_method_buttons(here)) if open_still and not asked else "",
    )


def pay_once(ctx: Context, intent: Obj, choice: str) -> None:
    """What the payer typed or pressed: a number or token of a test method, or `yes` or `no` where they are asked.

    Raises ApiError for what does not pay.
    """
    if choice in {"yes", "no"} and intent["status"] == "requires_action":
        method = ctx.need(methods.KIND, intent["payment_method"])
        if choice == "no":
            payments.refuse(ctx, intent, method)
        else:
            payments.attempt(ctx, intent, method, off_session=False)
        return
    test = methods.test_of(choice)
    if test is None:
        raise ApiError(NO_BUTTON)
    payments.attempt(ctx, intent, methods.made(ctx, test), off_session=False)


def portal_page(ctx: Context, session: Obj, told: str = "") -> bytes:
    """The subscriptions, the card and what is owed."""
    card = card_of(ctx.db, session["customer"]) or "none"
    owed = [
        (row["number"], written(row["amount_remaining"], row["currency"]), _act(session, "Pay", "pay", row["id"]))
        for row in portals.open_invoices(ctx, session)
    ]
    running = [
        (row["id"], row["status"], f"until {moment(last_end(row))}", _subscription_button(session, row))
        for row in portals.subscriptions(ctx, session)
    ]
    return page(
        "Your billing",
        Html(f'<p class="bad" role="alert">{tag("span", told).text}</p>') if told else "",
        table("Subscriptions", ("subscription", "status", "period", ""), running),
        table("Open invoices", ("number", "to pay", ""), owed),
        tag("h2", "Card"),
        tag("p", f"A payment with it will: {card}."),
        _act(session, "A card that pays", "card", Card.GOOD),
        _act(session, "A card that is declined", "card", Card.BAD),
        _act(session, "A card that asks its holder", "card", Card.ASKS),
        tag("p", link(session["return_url"], "Back")) if session["return_url"] else "",
    )


def act(ctx: Context, session: Obj, verb: str, value: str) -> str:
    """What the payer pressed in the portal; what to say of it."""
    done = _ACTS.get(verb)
    if done is None:
        raise ApiError(NO_BUTTON)
    done(ctx, session, value)
    return ""


def _card(ctx: Context, session: Obj, value: str) -> None:
    portals.change_card(ctx, session, Card(value))


def _stop(ctx: Context, session: Obj, value: str) -> None:
    portals.end_at_period_end(ctx, session, value, wanted=True)


def _go_on(ctx: Context, session: Obj, value: str) -> None:
    portals.end_at_period_end(ctx, session, value, wanted=False)


_ACTS: Final[dict[str, Callable[[Context, Obj, str], None]]] = {
    "card": _card,
    "pay": portals.pay,
    "cancel": _stop,
    "resume": _go_on,
}


def _method_buttons(here: str) -> list[Html]:
    return [button(here, f"{test.number}: {test.does}", choice=test.token) for test in methods.TESTS]


def _checkout_buttons(session: Obj) -> Html:
    here = CHECKOUT + session["id"]
    if session["mode"] == "payment":
        place = f"Pay from a place with a tax of {PERCENT} %"
        taxed = [button(here, place, choice=TAXED)] if session["automatic_tax"]["enabled"] else []
        return joined(*_method_buttons(here), *taxed, button(here, "Go back without paying", choice="cancel"))
    return joined(
        button(here, "Pay", choice="pay"),
        button(here, "Pay with a card that is declined", choice="decline"),
        button(here, "Pay with a card whose holder says no (3D Secure)", choice="3ds"),
        button(here, "Go back without paying", choice="cancel"),
    )


def _act(session: Obj, label: str, verb: str, value: str) -> Html:
    return button(PORTAL + session["id"], label, verb=verb, value=value)


def _subscription_button(session: Obj, subscription: Obj) -> Html:
    if subscription["cancel_at_period_end"]:
        return _act(session, "Keep it", "resume", subscription["id"])
    return _act(session, "Cancel at the end of the period", "cancel", subscription["id"])
