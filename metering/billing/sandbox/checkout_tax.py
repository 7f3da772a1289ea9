"""Tax of a checkout: https://docs.stripe.com/tax/checkout.

The sandbox knows no rates. Nothing is taxed but one payment whose payer pressed the button of a place with a tax of
20 %; customers here have no address, so a checkout of one that exists must be allowed to keep what the payer types in.
"""

from typing import Any, Final

from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import FLAG, Fields, Need, OneOf
from metering.billing.sandbox.unbuilt import unbuilt

PERCENT: Final = 20

AUTOMATIC_TAX: Final = Fields(enabled=Need(FLAG), **unbuilt("liability"))
CUSTOMER_UPDATE: Final = Fields(address=OneOf("auto", "never"), **unbuilt("name shipping"))


def tax_of(params: dict[str, Any]) -> Obj:
    """What a new session says of its tax. Raises ApiError 400 where there is no address to go by."""
    update = params.get("customer_update")
    if update and not params.get("customer"):
        raise ApiError("`customer_update` can only be used with `customer`.", param="customer_update")
    if not (params.get("automatic_tax") or {}).get("enabled"):
        return {"enabled": False, "liability": None, "provider": None, "status": None}
    if params.get("customer") and (update or {}).get("address") != "auto":
        told = (
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to the"
            " Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' to"
            " save the address entered in Checkout to the Customer."
        )
        raise ApiError(told, code="customer_tax_location_invalid", param="automatic_tax")
    status = "requires_location_inputs"
    return {"enabled": True, "liability": {"type": "self"}, "provider": "stripe", "status": status}


def settle(session: Obj, percent: int = 0) -> None:
    """The payer said where they are: add the tax of that place, a half rounded up. Nothing where none was asked for."""
    if not session["automatic_tax"]["enabled"]:
        return
    session["automatic_tax"] = {**session["automatic_tax"], "status": "complete"}
    for line in session["line_items"]["data"]:
        line["amount_tax"] = (line["amount_subtotal"] * percent + 50) // 100
        line["amount_total"] = line["amount_subtotal"] + line["amount_tax"]
    tax = sum(line["amount_tax"] for line in session["line_items"]["data"])
    session["total_details"] = {**session["total_details"], "amount_tax": tax}
    session["amount_total"] = session["amount_subtotal"] + tax
