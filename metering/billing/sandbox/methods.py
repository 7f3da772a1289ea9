"""/v1/payment_methods: Stripe's own test methods, each of which does one thing (https://docs.stripe.com/testing).

Their names are Stripe's. A payer types the number on a page, a server names the token; no number is ever kept.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from metering.billing.sandbox.cards import CARD_OF, Card, method_of
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError, missing
from metering.billing.sandbox.fields import LIST, TEXT, Fields, Need, OneOf
from metering.billing.sandbox.lists import page
from metering.billing.sandbox.unbuilt import unbuilt

KIND: Final = "payment_method"
_DOES: Final = "sandbox.method"


class Does(StrEnum):
    """What a method does with a payment."""

    PAYS = "pays"
    DECLINES = "is declined"
    ASKS = "asks its holder"
    LATER = "pays some days later"
    FAILS_LATER = "fails some days later"
    REFUND_PENDS = "pays; a refund takes a while"
    REFUND_FAILS = "pays; a refund fails afterwards"
    DISPUTES = "pays; its holder disputes it"


@dataclass(frozen=True, slots=True)
class TestMethod:
    """One of Stripe's test methods: its token, the number that a payer types, and what it does."""

    token: str
    number: str
    does: Does

    @property
    def card(self) -> bool:
        """Whether it is a card; else it is an account at a bank of the United States."""
        return "card" in self.token


TESTS: Final = (
    TestMethod("pm_card_visa", "4242424242424242", Does.PAYS),
    TestMethod("pm_card_visa_chargeDeclined", "4000000000000002", Does.DECLINES),
    TestMethod("pm_card_authenticationRequired", "4000002760003184", Does.ASKS),
    TestMethod("pm_card_pendingRefund", "4000000000007726", Does.REFUND_PENDS),
    TestMethod("pm_card_refundFail", "4000000000005126", Does.REFUND_FAILS),
    TestMethod("pm_card_createDispute", "4000000000000259", Does.DISPUTES),
    TestMethod("pm_usBankAccount_success", "000123456789", Does.LATER),
    TestMethod("pm_usBankAccount_accountClosed", "000111111113", Does.FAILS_LATER),
)

_BY_NAME: Final = {name: test for test in TESTS for name in (test.token, test.number)}

_BY_CARD: Final = {Card.GOOD: Does.PAYS, Card.BAD: Does.DECLINES, Card.ASKS: Does.ASKS}


def test_of(name: str) -> TestMethod | None:
    """The test method with this token or number; blanks in a number do not count."""
    return _BY_NAME.get(name.replace(" ", ""))


def made(ctx: Context, test: TestMethod) -> Obj:
    """A payment method of its own that does what the test method does; nobody's yet."""
    method = method_of(ctx, None, test.number[-4:])
    if not test.card:
        method |= {"type": "us_bank_account", "us_bank_account": _bank(test.number[-4:])}
        del method["card"]
    ctx.db.put(KIND, method)
    ctx.db.put(_DOES, {"id": method["id"], "does": test.does})
    return method


def named(ctx: Context, name: str, param: str = "payment_method") -> Obj:
    """The method with this id, or a new one of this token. Raises ApiError 400."""
    test = _BY_NAME.get(name)
    if test is not None and test.token == name:
        return made(ctx, test)
    found = ctx.db.get(KIND, name)
    if found is None:
        raise missing("PaymentMethod", name, param)
    return found


def does(ctx: Context, method: Obj) -> Does:
    """What it does with a payment. One that was given on /sandbox/cards does as it was told there."""
    found = ctx.db.get(_DOES, method["id"])
    return Does(found["does"]) if found else _BY_CARD[CARD_OF[method["card"]["last4"]]]


def attach_to(ctx: Context, method: Obj, customer: str) -> None:
    """Make it the customer's; no default of theirs is changed."""
    if method["customer"] == customer:
        return
    if method["customer"] is not None:
        raise ApiError("The payment method you provided has already been attached to a customer.")
    method["customer"] = customer
    ctx.db.put(KIND, method)
    ctx.emit("payment_method.attached", method)


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/payment_methods/{id}."""
    del params
    return ctx.need(KIND, noun="PaymentMethod")


def attach(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/payment_methods/{id}/attach; a token becomes a method of its own."""
    ctx.need("customer", params["customer"], param="customer")
    method = named(ctx, ctx.id)
    attach_to(ctx, method, params["customer"])
    return method


def detach(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/payment_methods/{id}/detach: nobody can pay with it any more."""
    del params
    method = ctx.need(KIND, noun="PaymentMethod")
    owner, method["customer"] = method["customer"], None
    ctx.db.put(KIND, method)
    customer = ctx.db.get("customer", owner) if owner else None
    settings = (customer or {}).get("invoice_settings") or {}
    if customer and settings.get("default_payment_method") == method["id"]:
        customer["invoice_settings"] = {**settings, "default_payment_method": None}
        ctx.db.put("customer", customer)
    ctx.emit("payment_method.detached", method)
    return method


def of_customer(ctx: Context, customer: str) -> list[Obj]:
    """The methods of a customer, the newest first."""
    return [row for row in ctx.db.all(KIND, newest_first=True) if row["customer"] == customer]


def list_of_customer(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/customers/{customer}/payment_methods: the newest first."""
    ctx.need("customer")
    rows = [row for row in of_customer(ctx, ctx.id) if params.get("type") in {None, row["type"]}]
    return page(ctx, rows, params)


def _bank(last4: str) -> Obj:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": None,
        "last4": last4,
        "networks": None,
        "routing_number": "110000000",
        "status_details": None,
    }


ROUTES: Final = (
    Route("GET", "/v1/payment_methods/{id}", retrieve),
    Route(
        "POST",
        "/v1/payment_methods/{id}/attach",
        attach,
        Fields(customer=Need(TEXT), **unbuilt("customer_account")),
    ),
    Route("POST", "/v1/payment_methods/{id}/detach", detach),
    Route(
        "GET",
        "/v1/customers/{customer}/payment_methods",
        list_of_customer,
        Fields(LIST, type=OneOf("card", "us_bank_account"), **unbuilt("allow_redisplay")),
    ),
)
