"""The sandbox's own calls under /sandbox: no part of Stripe, no key needed, and only there on the loopback."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from metering.billing.sandbox import jobs, mail, money_calls, pages
from metering.billing.sandbox.answers import Answer
from metering.billing.sandbox.cards import Card, give_card
from metering.billing.sandbox.db import Db
from metering.billing.sandbox.faults import Fault
from metering.billing.sandbox.switches import Switch

if TYPE_CHECKING:
    from metering.billing.sandbox.app import Sandbox

_OK: Final = 200
_BAD: Final = 400
_NOT_FOUND: Final = 404

SECTIONS: Final[dict[str, Callable[[Db], object]]] = {
    "accepted": lambda db: db.all("sandbox.accepted"),
    "rejected": lambda db: db.all("sandbox.rejected"),
    "invoices": lambda db: db.all("invoice"),
    "payments": lambda db: db.all("payment_intent"),
    "deliveries": lambda db: db.all("sandbox.delivery"),
}
"""What GET /sandbox/audit shows: meter events that were taken and that were refused, invoices, payments,
webhook deliveries."""

Answering = Callable[["Sandbox", bytes], tuple[int, object]]


class Control:
    """Answers what is not Stripe's."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox

    def answer(self, scope: Mapping[str, Any], body: bytes) -> Answer:
        """The answer to a request outside of /v1 and /v2."""
        self._sandbox.run_due()
        found = pages.answer(self._sandbox, scope["method"], scope["path"], body)
        if found is not None:
            return found
        handler = CALLS.get((scope["method"], scope["path"]))
        if handler is None:
            told = f"there is no {scope['method']} {scope['path']}; there are " + ", ".join(
                " ".join(one) for one in CALLS
            )
            return Answer(_NOT_FOUND, orjson.dumps({"error": {"message": told}}))
        status, value = handler(self._sandbox, body)
        return Answer(status, orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _audit(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    del body
    sandbox.run_due()
    return _OK, {name: section(sandbox.db) for name, section in SECTIONS.items()}


def _faults(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    del body
    return _OK, sandbox.faults.shown()


def _add_fault(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    try:
        sandbox.faults.add(Fault(**orjson.loads(body)))
    except (ValueError, TypeError) as error:
        return _BAD, {"error": {"message": f"no fault as {', '.join(Fault.__slots__)}: {error}"}}
    return _OK, sandbox.faults.shown()


def _clear_faults(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    del body
    sandbox.faults.clear()
    return _OK, []


def _due(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    """`next_due` is when the next thing falls due; `deliveries` how many webhooks are to be sent by now."""
    del body
    moments = [moment for moment in (jobs.next_due(sandbox.db), mail.next_due(sandbox.db)) if moment is not None]
    now_s = sandbox.now_s()
    return _OK, {
        "now": now_s,
        "next_due": min(moments, default=None),
        "deliveries": sum(not row["held"] for row in mail.waiting(sandbox.db, now_s)),
    }


def _run(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    done = sandbox.run_due()
    return _OK, {"done": done, **_told(_due(sandbox, body)[1])}


def _switches(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    del body
    return _OK, sandbox.postman.switches.shown()


def _add_switch(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    try:
        sandbox.postman.switches.add(Switch(**orjson.loads(body)), sandbox.now_s())
    except (ValueError, TypeError) as error:
        return _BAD, {"error": {"message": f"no switch as {', '.join(Switch.__slots__)}: {error}"}}
    return _OK, sandbox.postman.switches.shown()


def _clear_switches(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    del body
    sandbox.postman.switches.clear()
    return _OK, []


def _give_card(sandbox: "Sandbox", body: bytes) -> tuple[int, object]:
    try:
        told = orjson.loads(body)
        with sandbox.db.transaction():
            give_card(sandbox.context(), str(told["customer"]), Card(told["card"]))
    except (ValueError, TypeError, KeyError) as error:
        return _BAD, {"error": {"message": f"no customer and card ({', '.join(Card)}): {error}"}}
    return _OK, told


def _told(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


CALLS: Final[dict[tuple[str, str], Answering]] = {
    ("GET", "/sandbox/audit"): _audit,
    ("GET", "/sandbox/faults"): _faults,
    ("POST", "/sandbox/faults"): _add_fault,
    ("DELETE", "/sandbox/faults"): _clear_faults,
    ("POST", "/sandbox/cards"): _give_card,
    ("POST", "/sandbox/payments"): money_calls.pay,
    ("POST", "/sandbox/refunds"): money_calls.refund,
    ("POST", "/sandbox/disputes"): money_calls.dispute,
    ("GET", "/sandbox/deliveries"): _switches,
    ("POST", "/sandbox/deliveries"): _add_switch,
    ("DELETE", "/sandbox/deliveries"): _clear_switches,
    ("GET", "/sandbox/due"): _due,
    ("POST", "/sandbox/run"): _run,
}
"""All of them. Pages are added here."""
