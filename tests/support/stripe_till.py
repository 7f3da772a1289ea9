"""As much of Stripe over HTTP as tests of the service's own routes take: prices, customers, sessions, sums.

What it is sent, and what it answers, is held to Stripe's own schema. Everything else is asked of the sandbox.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.stripe_objects import rows, whole
from tests.support.stripe_schema import check_request, check_response, decoded
from tests.support.stripe_sold import Sold, preview, price

METER_EVENTS = "/v1/billing/meter_events"

_STORED = {"error": {"type": "api_error", "message": "stored"}}


_NO_SUCH = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such object"}}


class Till(ThreadingHTTPServer):
    """`sent` holds what came in: method, path, parameters, Idempotency-Key. `refuse` answers everything instead;
    keys in `broken` are those that a 500 is kept under; `lacks` are lookup keys without a price; `configurations` are
    those of the portal; `usage` is what the meter of scans has of everybody. `metered` are the units of each identifier
    of a meter event; when they are counted, and before the answer, `on_metered` is called. `sold` are subscriptions,
    `payments` wait for their payers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sent: list[tuple[str, str, dict[str, Any], str]] = []
        self.made: dict[str, dict[str, Any]] = {}
        self.lacks: set[str] = set()
        self.invoices: list[dict[str, Any]] = []
        self.configurations: list[dict[str, Any]] = [{"id": "bpc_own"}]
        self.broken: set[str] = set()
        self.sold = Sold()
        self.payments: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []
        self.usage = 0
        self.metered: dict[str, int] = {}
        self.on_metered: Callable[[], object] = lambda: None
        self.refuse: tuple[int, dict[str, Any]] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def pay(self, intent_id: str) -> None:
        """A payment succeeds."""
        payment = self.payments[intent_id]
        payment |= {"status": "succeeded", "amount_received": payment["amount"]}

    def posts(self, path: str) -> list[dict[str, Any]]:
        """The parameters of what was sent to a path."""
        return [params for method, where, params, _ in self.sent if (method, where) == ("POST", path)]

    def said(self, method: str, path: str, params: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        base, _, name = path.rpartition("/")
        if base == "/v1/subscriptions":
            if method == "GET":
                return 200, self.sold.named(name)
            return 200, self.sold.ended(name) if method == "DELETE" else self.sold.changed(name, params)
        if path.startswith(("/v1/payment_intents", "/v1/refunds", "/v1/disputes")):
            lost = base == "/v1/payment_intents" and name not in self.payments
            return (404, _NO_SUCH) if lost else (200, self._money(path, params, key))
        if path != METER_EVENTS:
            return 200, self.answer(path, params, key)
        name = params.get("identifier", f"minted-{len(self.sent)}")
        if name in self.metered:
            text = f"An event already exists with identifier {name}."
            return 400, {"error": {"type": "invalid_request_error", "message": text}}
        self.metered[name] = int(params["payload"]["value"])
        self.on_metered()
        return 200, whole("billing.meter_event", identifier=name)

    def answer(self, path: str, params: dict[str, Any], key: str) -> dict[str, Any]:
        """The answer to a call; the same one to the same key."""
        if path == "/v1/prices":
            names = [name for name in params["lookup_keys"] if name not in self.lacks]
            return rows(*map(price, names), url=path)
        if path.startswith("/v1/billing/meters"):
            return self._metered(path)
        if path in {"/v1/subscriptions", "/v1/invoices/create_preview"}:
            return preview(params) if "create" in path else rows(self.sold.of(params["customer"]), url=path)
        if path in {"/v1/billing_portal/configurations", "/v1/invoices"}:
            return self._configurations() if "portal" in path else self._invoices(params)
        if key not in self.made:
            self.made[key] = self._new(path, len(self.made) + 1)
        return self.made[key]

    def _configurations(self) -> dict[str, Any]:
        found = [whole("billing_portal.configuration", active=True, **one) for one in self.configurations]
        return rows(*found, url="/v1/billing_portal/configurations")

    def _invoices(self, params: dict[str, Any]) -> dict[str, Any]:
        """A page of those in `invoices`."""
        fitting = [
            one for one in self.invoices
            if all(params.get(name) in {None, one[name]} for name in ("customer", "status"))
        ]  # fmt: skip
        start = next((i + 1 for i, one in enumerate(fitting) if one["id"] == params.get("starting_after")), 0)
        end = start + int(params.get("limit", 10))
        page = rows(*(whole("invoice", **one) for one in fitting[start:end]), url="/v1/invoices")
        return {**page, "has_more": len(fitting) > end}

    def _metered(self, path: str) -> dict[str, Any]:
        """The meters, or the sum of one."""
        if path.endswith("/event_summaries"):
            return rows(whole("billing.meter_event_summary", aggregated_value=float(self.usage)), url=path)
        return rows(whole("billing.meter", id="mtr_1", event_name="scorpius_scans_overage"), url=path)

    def _money(self, path: str, params: dict[str, Any], key: str) -> dict[str, Any]:
        """What has to do with payments."""
        if path.startswith("/v1/payment_intents/"):
            return self.payments[path.rpartition("/")[2]]
        if path == "/v1/payment_intents":
            return self._payment(params, key)
        if not key:
            mine = [one for one in self.refunds if one["payment_intent"] == params["payment_intent"]]
            return rows(*(mine if path == "/v1/refunds" else ()), url=path)
        if key not in self.made:
            intent = params["payment_intent"]
            gone = sum(one["amount"] for one in self.refunds if one["payment_intent"] == intent)
            amount = int(params.get("amount") or self.payments[intent]["amount"] - gone)
            said = {"amount": amount, "payment_intent": intent}
            self.made[key] = whole("refund", id=f"re_{len(self.made)}", status="succeeded", **said)
            self.refunds.append(self.made[key])
        return self.made[key]

    def _payment(self, params: dict[str, Any], key: str) -> dict[str, Any]:
        """A payment that waits for its payer."""
        if key not in self.made:
            name = f"pi_{len(self.made) + 1}"
            said = {"amount": int(params["amount"]), "currency": params["currency"], "metadata": params["metadata"]}
            said |= {"client_secret": f"{name}_secret_1", "customer": params["customer"], "livemode": False}
            self.payments[name] = self.made[key] = whole(
                "payment_intent", id=name, status="requires_payment_method", **said
            )
        return self.made[key]

    def _new(self, path: str, number: int) -> dict[str, Any]:
        """What is made by a call."""
        if path == "/v1/customers":
            return whole("customer", id=f"cus_{number}")
        if path == "/v1/billing_portal/sessions":
            return whole("billing_portal.session", id=f"bps_{number}", url=f"{self.url}/portal/bps_{number}")
        url = f"{self.url}/pay/cs_{number}"
        return whole("checkout.session", id=f"cs_{number}", url=url, expires_at=1_795_694_400)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Till

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path, _, query = self.path.partition("?")
        check_request(self.command, self.path, body, self.headers.get("Content-Type", ""))
        params, key = decoded(body or query), self.headers.get("Idempotency-Key", "")
        self.server.sent.append((self.command, path, params, key))
        stored = (500, _STORED) if key in self.server.broken else None
        status, answer = stored or self.server.refuse or self.server.said(self.command, path, params, key)
        check_response(self.command, path, status, answer)
        raw = json.dumps(answer).encode()
        with suppress(ConnectionError):  # whoever asked may be dead
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def till() -> Iterator[Till]:
    """One that answers while the block runs."""
    with Till() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
