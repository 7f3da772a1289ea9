"""/sandbox/payments, /sandbox/refunds, /sandbox/disputes: what payers, banks and people at Stripe's dashboard do."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from metering.billing.sandbox import disputes, hosted, payments, refunds
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError

if TYPE_CHECKING:
    from metering.billing.sandbox.app import Sandbox

_OK = 200


def pay(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    """`{payment_intent, method}`: the payer types a test number (or names a token), or says `yes` or `no`."""
    return _done(sandbox, body, _pay)


def refund(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    """`{payment_intent, amount?}`: somebody refunds on the dashboard."""
    return _done(sandbox, body, refunds.create)


def dispute(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    """`{payment_intent, status?}`: the holder disputes a payment; with `won` or `lost` their bank decides it."""
    return _done(sandbox, body, _dispute)


def _done(sandbox: "Sandbox", body: bytes, act: Callable[[Context, dict[str, Any]], Obj]) -> tuple[int, object]:
    ctx = sandbox.context()
    try:
        told = orjson.loads(body)
        with sandbox.db.transaction():
            return _OK, act(ctx, told)
    except ApiError as error:
        with sandbox.db.transaction():
            payments.keep_failure(ctx, {}, error)
        return error.status, {"error": error.error}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return 400, {"error": {"message": f"these calls take a payment_intent and what is to happen to it: {error}"}}


def _pay(ctx: Context, told: dict[str, Any]) -> Obj:
    intent = ctx.need(payments.KIND, str(told["payment_intent"]), param="payment_intent")
    hosted.pay_once(ctx, intent, str(told["method"]))
    return ctx.need(payments.KIND, intent["id"])


def _dispute(ctx: Context, told: dict[str, Any]) -> Obj:
    intent = ctx.need(payments.KIND, str(told["payment_intent"]), param="payment_intent")
    known = [row for row in ctx.db.all(disputes.KIND) if row["payment_intent"] == intent["id"]]
    found = known[-1] if known else disputes.begin(ctx, ctx.need("charge", str(intent["latest_charge"])))
    if told.get("status"):
        if told["status"] not in {"won", "lost"}:
            raise ApiError("A dispute is won or lost.")
        disputes.end(ctx, found, told["status"])
    return found
