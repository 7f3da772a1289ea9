"""S2: its three examples run as they stand there, and what they say comes true."""

import ast
import inspect
import sys
from collections.abc import Iterator
from textwrap import dedent
from types import ModuleType
from typing import Any, Final

import httpx2
import pytest

from tests.service.running import Running, token

HOST: Final = "usage-metering:8005"
"""Where the examples say that the service is."""

TRACK: Final = """
import httpx

# Track a scan usage event
async with httpx.AsyncClient() as client:
    response = await client.post(
        "http://usage-metering:8005/usage/track",
        json={
            "org_id": "my-org",
            "feature": "scans",
            "quantity": 1,
            "metadata": {"contract": "0x123"}
        },
        headers={"Authorization": f"Bearer {jwt_token}"}
    )
    usage = response.json()
    print(f"Remaining: {usage['remaining']}")
"""

LOOK: Final = """
# Get current usage for organization
response = await client.get(
    f"http://usage-metering:8005/usage/{org_id}",
    headers={"Authorization": f"Bearer {jwt_token}"}
)
usage = response.json()
"""

UPGRADE: Final = """
# Upgrade to professional plan
response = await client.post(
    "http://usage-metering:8005/billing/update",
    json={
        "org_id": "my-org",
        "plan": "professional",
        "limits": {
            "scans": 1000,
            "wallet_checks": 10000
        },
        "stripe_customer_id": "cus_123"
    },
    headers={"Authorization": f"Bearer {jwt_token}"}
)
"""


class _Here(httpx2.AsyncHTTPTransport):
    """Leads what is for that host to a service on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["host"] == HOST
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)
        return await super().handle_async_request(request)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running(plans_file="s2") as running:
        yield running


async def run(example: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run an example as a shell that may wait would; the names it leaves."""
    code = compile(dedent(example), "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 - the documented text, and nothing else
    if inspect.isawaitable(result):
        await result
    return names


async def test_the_three_examples_run_as_they_are_documented(
    service: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    httpx = ModuleType("httpx")  # the library of that name has another one here
    httpx.__dict__["AsyncClient"] = lambda: httpx2.AsyncClient(transport=_Here(service.port))
    monkeypatch.setitem(sys.modules, "httpx", httpx)
    names: dict[str, Any] = {"jwt_token": token("my-org"), "org_id": "my-org"}

    tracked = await run(TRACK, dict(names))
    assert capsys.readouterr().out == "Remaining: 9\n"
    assert [*tracked["usage"]][:6] == ["org_id", "feature", "current_usage", "limit", "remaining", "reset_date"]

    async with httpx.AsyncClient() as client:
        seen = (await run(LOOK, names | {"client": client}))["usage"]
        assert (seen["plan"], seen["features"]["scans"]["current"]) == ("free", 1)
        upgraded = (await run(UPGRADE, names | {"client": client}))["response"]
        assert upgraded.status_code == 200
        seen = (await run(LOOK, names | {"client": client}))["usage"]
    limits = {name: feature["limit"] for name, feature in seen["features"].items()}
    assert (seen["plan"], seen["stripe_customer_id"]) == ("professional", "cus_123")
    assert limits == {"scans": 1000, "wallet_checks": 10_000, "api_requests": 50_000}
    assert seen["features"]["scans"]["current"] == 1


def test_usage_above_the_limit_is_tracked_allowed_and_flagged(service: Running) -> None:
    answer = service.track(org_id="over", feature="scans", quantity=12).json()
    assert (answer["allowed"], answer["current_usage"], answer["overage"], answer["remaining"]) == (True, 12, 2, 0)
    assert service.call("GET", "/usage/over", token("over")).json()["overage_flagged"] is True
