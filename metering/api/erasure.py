"""DELETE /v1/orgs/{org_id}, and its receipt."""

from typing import Any, Final

from metering.api.guard import visible
from metering.api.models.erasure import EraseQuery
from metering.api.route import Call, Reply, json_reply
from metering.erasure_errors import ErasureNotFound
from metering.log import request_id
from metering.moments import rfc3339
from metering.store.erasure import Erasure
from metering.store.grants import By
from metering.store.removal import Files

_COPIES: Final = (
    "Backups of the store, and what EVENT_SINK wrote, hold it until you let them go. After a restore, erase it again.",
    "Logs name it, as LOG_ORGS says, until they are rotated away.",
)
_FILE: Final = "Run BGREWRITEAOF and SLOWLOG RESET on the store: its user may not."
_STRIPE: Final = "Redact {} at Stripe when the law lets its invoices go: https://docs.stripe.com/privacy/redaction"


async def erase_org(call: Call) -> Reply:
    """Erase an organisation; the same answer for one that was. Raises OrgNotFound, ErasureBlocked."""
    org_id, query = visible(call.caller, call.params["org_id"]), call.asked(EraseQuery)
    by = By(call.caller.subject, query.reason, request_id.get())
    erasure = await call.services.erasures.ask(org_id, f"era_{call.name()}", by, write_off=query.write_off)
    return json_reply(erasure_view(erasure), 202, {"Location": f"/v1/orgs/{org_id}/erasure"})


async def get_erasure(call: Call) -> Reply:
    """The receipt. Raises ErasureNotFound."""
    org_id = visible(call.caller, call.params["org_id"])
    erasure = await call.services.erasures.find(org_id)
    if erasure is None:
        raise ErasureNotFound
    return json_reply(erasure_view(erasure))


def erasure_view(erasure: Erasure) -> dict[str, Any]:
    """A receipt as the wire shows it."""
    return {
        "org_id": erasure.org_id,
        "job_id": erasure.job_id,
        "status": "erasing" if erasure.done_ms is None else "erased",
        "erased_at": rfc3339(erasure.at_ms),
        "erased_by": erasure.by.actor,
        "reason": erasure.by.reason,
        "finished_at": None if erasure.done_ms is None else rfc3339(erasure.done_ms),
        "overage_given_up": erasure.given_up,
        "store_file": erasure.files,
        "stripe_customer_id": erasure.customer,
        "left_to_do": _left_to_do(erasure),
    }


def _left_to_do(erasure: Erasure) -> list[str]:
    stripe = [] if erasure.customer is None else [_STRIPE.format(erasure.customer)]
    return [*stripe, *([_FILE] if erasure.files == Files.REFUSED else []), *_COPIES]
