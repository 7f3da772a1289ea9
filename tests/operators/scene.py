"""Two workers, a store, a sandbox Stripe and a real Prometheus, after traffic through every state."""

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode

import redis

from metering.catalogues import text_of
from metering.store.connect import normalise_url
from tests.operators.prometheus import Prometheus
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, call
from tests.support.wait import wait_until

CHECKS: Final = "[features.wallet_checks]\n"
PACKAGES: Final = """
[[credit_packages]]
credits = 100
price_minor = 1000
[[credit_packages]]
credits = 500
price_minor = 4500
"""
"""What the default catalogue does not sell, and what takes credits then."""

SOON_S: Final = 40.0
"""For what takes effect in some seconds, on a machine that runs other tests too."""

Labels = tuple[tuple[str, str], ...]


class _Stay(urllib.request.HTTPRedirectHandler):
    """Leaves it at the answer of the page."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Scene:
    """What runs; `token` is an administrator's, `stripe` the address of the sandbox."""

    store: StoreServer
    service: ServiceProcess
    prometheus: Prometheus
    token: str
    stripe: str
    raw: Any

    def post(self, path: str, **body: object) -> tuple[int, Any]:
        """A request with a body."""
        return self.service.call(path, body, token=self.token)

    def track(self, org_id: str, feature: str, quantity: int, **more: object) -> int:
        """Usage; the status of the answer."""
        return self.post("/usage/track", org_id=org_id, feature=feature, quantity=quantity, **more)[0]

    def buys(self, org_id: str, plan: str) -> None:
        """Buy a plan at the sandbox's page, and wait until it is there."""
        status, session = self.post("/v1/billing/checkout", org_id=org_id, plan=plan)
        assert status == 201, session
        with suppress(HTTPError):  # what leads on to the page after it
            urllib.request.build_opener(_Stay).open(urllib.request.Request(session["url"], b"choice=pay"))  # noqa: S310
        wait_until(lambda: self._plan(org_id) == plan, timeout_s=SOON_S, what=f"{org_id} is on {plan}")

    def buys_credits(self, org_id: str, credits_: int, *cards: str) -> str:
        """Pay for a package with one card after the other, until one pays; the payment."""
        status, begun = self.post("/billing/create-payment-intent", org_id=org_id, credit_amount=credits_)
        assert status == 201, begun
        for card in cards:
            call(f"{self.stripe}/sandbox/payments", {"payment_intent": begun["payment_intent_id"], "method": card})
        return str(begun["payment_intent_id"])

    def at_stripe(self, method: str, path: str, **form: str) -> Any:
        """A call to the sandbox as whoever works with the account there."""
        key = (self.service.data_dir / "stripe-sandbox-key").read_text().strip()
        sent = urlencode(form).encode() if form else None
        headers = {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{self.stripe}{path}", sent, headers, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
            return json.load(answer)

    def _plan(self, org_id: str) -> str:
        return str(self.service.call(f"/usage/{org_id}", token=self.token)[1].get("plan"))

    # ── the truth ────────────────────────────────────────────────────────────────────────────────────────

    def totals(self, kind: str) -> Counter[str]:
        """The sums of all partitions that begin with `kind`, by the rest of their name."""
        found: Counter[str] = Counter()
        for key in self.raw.scan_iter(match="{p*}:totals", count=1000):
            for name, value in self.raw.hgetall(key).items():
                if name.startswith(f"{kind}:"):
                    found[name.removeprefix(f"{kind}:")] += int(value)
        return found

    def plans(self) -> Counter[str]:
        """Organisations by plan."""
        found: Counter[str] = Counter()
        for key in self.raw.scan_iter(match="{p*}:plans", count=1000):
            found.update({plan: int(orgs) for plan, orgs in self.raw.hgetall(key).items()})
        return +found

    def length(self, name: str) -> int:
        """Members of a list of all partitions, of whatever kind."""
        keys = list(self.raw.scan_iter(match=f"{{p*}}:{name}", count=1000))
        return sum(self.raw.xlen(key) if self.raw.type(key) == "stream" else self.raw.zcard(key) for key in keys)

    def features(self) -> Counter[str]:
        """Units ever by feature."""
        found: Counter[str] = Counter()
        for name, count in self.totals("u").items():
            found[name.partition(":")[2]] += count
        return found

    def by_plan(self) -> Counter[str]:
        """Units ever by plan."""
        found: Counter[str] = Counter()
        for name, count in self.totals("u").items():
            found[name.partition(":")[0]] += count
        return found

    def own_by_plan(self, org_id: str) -> dict[Labels, float]:
        """Units ever of one organisation, of its record: what a change of plan moved stays with the plan before."""
        (key,) = self.raw.scan_iter(match=f"{{p*}}:o:{org_id}", count=1000)
        record = self.raw.hgetall(key)
        places: Counter[tuple[str, str]] = Counter()
        for name, value in record.items():
            kind, _, rest = name.partition(":")
            if kind in {"u", "b"}:
                places[rest, record["plan"]] += int(value)
            elif kind == "p":
                plan, _, feature = rest.partition(":")
                places[feature, plan] += int(value)
        return {(("feature", feature), ("plan", plan)): float(count) for (feature, plan), count in places.items()}

    def own(self, org_id: str) -> Counter[str]:
        """The same by feature."""
        found: Counter[str] = Counter()
        for labels, count in self.own_by_plan(org_id).items():
            found[dict(labels)["feature"]] += int(count)
        return found

    def units(self) -> dict[str, int]:
        """Units ever by organisation, of its record: counted now and before, and taken out (what no plan has)."""
        records = {key.split(":")[2]: self.raw.hgetall(key) for key in self.raw.scan_iter(match="{p*}:o:*", count=1000)}
        return {
            org_id: sum(int(value) for name, value in record.items() if name[:2] in {"u:", "b:", "p:"})
            for org_id, record in records.items()
        }

    def reconciled(self, field: str) -> int:
        """What the last reconciliation left."""
        return int(self.raw.hget("{p00}:stripe", field) or 0)


@contextmanager
def scene(program: str) -> Iterator[Scene]:
    """All of it, with traffic done and everything at rest."""
    with StoreServer(tcp=True) as store, NamedTemporaryFile("w", suffix=".toml") as plans:
        plans.write(text_of(None)[0].replace(CHECKS, f"{CHECKS}credits = 1\n") + PACKAGES)
        plans.flush()
        settings = {"REDIS_URL": store.url, "DEBUG": "true", "LOG_LEVEL": "ERROR", "PLANS_FILE": plans.name}
        with ServiceProcess("--workers", "2", "--sandbox", settings=settings) as service:
            stripe = json.loads((service.data_dir / "stripe-sandbox.json").read_text())["url"]
            client: Any = redis.Redis.from_url(normalise_url(store.url, database=2), decode_responses=True)
            with client, Prometheus(program, f"127.0.0.1:{service.port}") as prometheus:
                play = Scene(store, service, prometheus, service.token(), stripe, client)
                _used(play)
                yield play


def _used(play: Scene) -> None:
    """Traffic through every state, once Prometheus has seen how it was before."""
    seen = 'count_over_time(scorpius_billing_events_total{event_type="invoice.paid"}[1m]) > 1'
    wait_until(lambda: play.prometheus.query(seen), timeout_s=SOON_S, what="Prometheus has looked twice")
    assert play.track("nobody-pays", "scans", 15) == 200  # 5 of it above the limit
    assert play.track("acme", "scans", 4, event_id="e1") == 200
    assert play.track("acme", "scans", 4, event_id="e1") == 200  # a duplicate
    assert play.track("acme", "scans", 5, event_id="e1") == 409
    assert play.track("acme", "no_such_feature", 1) == 404
    assert play.track("acme", "api_requests", 30) == 200
    play.buys("acme", "professional")
    assert play.track("acme", "api_requests", 20) == 200
    assert play.track("acme", "scans", 1010) == 200  # overage that somebody pays for
    declined = ("pm_card_visa_chargeDeclined", "pm_card_visa")
    first, _, _ = (
        play.buys_credits("acme", *one) for one in ((100, "pm_card_visa"), (100, *declined), (500, *declined[1:]))
    )
    assert call(f"{play.stripe}/sandbox/refunds", {"payment_intent": first, "amount": 300})[0] == 200
    assert play.post("/v1/events?ack=async", org_id="acme", feature="scans", quantity=1)[0] == 202
    wrong = {"org_id": "acme", "feature": "api_requests", "delta": -7, "reason": "test", "id": "a1"}
    assert play.post("/v1/usage/adjustments", **wrong)[0] == 200
    assert call(f"{play.service.url}/webhooks/stripe", {})[0] == 400  # signed by nobody
    wait_until(lambda: play.totals("refunds")["usd"], timeout_s=SOON_S, what="the refund is known")
    wait_until(lambda: play.totals("w")["new"], timeout_s=SOON_S, what="Stripe has the overage")
    assert play.post("/v1/reconciliation/run")[0] == 202
    wait_until(lambda: play.reconciled("reconciled"), timeout_s=SOON_S, what="the books were compared")
    quiet = ("dirty", "outbox", "inbox", "queue")
    wait_until(lambda: not any(map(play.length, quiet)), timeout_s=SOON_S, what="nothing waits")
