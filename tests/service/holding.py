"""Reservations and leases over HTTP: a catalogue that blocks, caps and counts on, and the calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from metering.auth import ADMIN
from tests.service.running import Running, token
from tests.support.wait import wait_until

CATALOGUE: Final = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features]
scans = { title = "Scans", unit = "scan" }
checks = { title = "Checks", unit = "check" }
calls = { title = "Calls", unit = "call", lease_expiry = "release" }
closed = { title = "Closed", unit = "call" }
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "block"
price_minor = 0
[plans.free.features]
scans = { limit = 10, on_limit = "overage" }
checks = { limit = 10 }
calls = { limit = 10, on_limit = "cap" }
closed = { limit = 10, enabled = false }
[plans.pro]
title = "Pro"
reset = "calendar"
on_limit = "block"
price_minor = 100
rate_limit = { events = 60, per = "hour", burst = 2 }
[plans.pro.features]
scans = { limit = 1000 }
checks = { limit = 1000 }
calls = { limit = 1000 }
closed = { limit = 10 }
"""

Answer = httpx2.Response


@contextmanager
def holding(folder: Path, **settings: Any) -> Iterator[Running]:
    """A service with this catalogue, which ends holds that have run out."""
    file = folder / "plans.toml"
    file.write_text(CATALOGUE)
    with Running(plans_file=file, tidies=True, **settings) as running:
        yield running


class Holding:
    """The calls of one organisation, as administrator; of checks unless another feature is named."""

    def __init__(self, service: Running, org_id: str) -> None:
        self.service, self.org_id, self.admin = service, org_id, token(None, ADMIN)

    def call(self, method: str, path: str, **body: Any) -> Answer:
        """One request about the organisation: in the query where there is no body."""
        if method in {"GET", "DELETE"}:
            return self.service.call(method, path, self.admin, params={"org_id": self.org_id})
        return self.service.call(method, path, self.admin, json={"org_id": self.org_id} | body)

    def reserve(self, quantity: int, hold_id: str | None = "r1", **body: Any) -> Answer:
        """POST /v1/reservations."""
        named = {} if hold_id is None else {"id": hold_id}
        asked = {"feature": "checks", "quantity": quantity, "ttl_s": 600}
        return self.call("POST", "/v1/reservations", **named, **(asked | body))

    def reservation(self, hold_id: str = "r1") -> dict[str, Any]:
        """GET /v1/reservations/{id}."""
        found: dict[str, Any] = self.call("GET", f"/v1/reservations/{hold_id}").json()
        return found

    def commit(self, hold_id: str = "r1", **body: Any) -> Answer:
        """POST /v1/reservations/{id}/commit."""
        return self.call("POST", f"/v1/reservations/{hold_id}/commit", **body)

    def extend(self, ttl_s: int, hold_id: str = "r1") -> Answer:
        """POST /v1/reservations/{id}/extend."""
        return self.call("POST", f"/v1/reservations/{hold_id}/extend", ttl_s=ttl_s)

    def release(self, hold_id: str = "r1") -> Answer:
        """DELETE /v1/reservations/{id}."""
        return self.call("DELETE", f"/v1/reservations/{hold_id}")

    def lease(self, quantity: int, lease_id: str | None = "l1", **body: Any) -> Answer:
        """POST /v1/leases."""
        named = {} if lease_id is None else {"id": lease_id}
        return self.call(
            "POST", "/v1/leases", **named, **({"feature": "checks", "quantity": quantity, "ttl_s": 60} | body)
        )

    def leased(self, lease_id: str = "l1") -> dict[str, Any]:
        """GET /v1/leases/{id}."""
        found: dict[str, Any] = self.call("GET", f"/v1/leases/{lease_id}").json()
        return found

    def settle(self, used: int, lease_id: str = "l1") -> Answer:
        """POST /v1/leases/{id}/settle."""
        return self.call("POST", f"/v1/leases/{lease_id}/settle", used=used)

    def track(self, quantity: int = 1, **body: Any) -> Answer:
        """POST /usage/track."""
        asked: dict[str, Any] = {"org_id": self.org_id, "feature": "checks", "quantity": quantity}
        return self.service.track(**(asked | body))

    def figures(self, feature: str = "checks") -> tuple[int, int, int | None]:
        """Used, reserved and remaining, as the usage view shows them."""
        view = self.call("GET", f"/usage/{self.org_id}").json()["features"][feature]
        return view["current"], view["reserved"], view["remaining"]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fails unless the organisation's keys hold the same afterwards: the job may end holds of others meanwhile."""
        before = self._keys()
        yield
        assert self._keys() == before

    def _keys(self) -> dict[bytes, bytes]:
        return {key: value for key, value in self.service.snapshot().items() if self.org_id.encode() in key}

    def ended(self, path: str) -> None:
        """Wait until what was made for a second is over."""
        wait_until(lambda: self.call("GET", path).json()["status"] != "held", timeout_s=10, what=f"{path} is over")
