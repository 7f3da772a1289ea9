"""Reconciliation over HTTP and on the command line, with Stripe's own client between us and the sums."""

import csv
import io
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from metering.auth import ADMIN
from metering.billing.repair import LAG_MS
from metering.cli import app
from tests.service.dying import died
from tests.service.running import Running, problem, token
from tests.support.stripe_till import Till, till

ROOT = token(None, ADMIN, sub="root")
KEY = "sk_test_0123456789"


@pytest.fixture(scope="module")
def stripe() -> Iterator[Till]:
    with till() as answering:
        yield answering


@pytest.fixture(scope="module")
def service(stripe: Till) -> Iterator[Running]:
    settings: dict[str, Any] = {"stripe_secret_key": KEY, "stripe_api_base": stripe.url}
    with Running(**settings) as running:
        yield running


@pytest.fixture
def org(service: Running, stripe: Till) -> str:
    """An organisation with three units of overage, of which no worker has told Stripe."""
    name = f"org-{secrets.token_hex(6)}"
    settings = {"org_id": name, "stripe_customer_id": f"cus_{name[4:]}"}
    assert service.call("POST", "/billing/update", ROOT, json=settings).status_code == 200
    assert service.track(org_id=name, feature="scans", quantity=13).status_code == 200
    stripe.usage, stripe.refuse = 0, None
    return name


def test_both_sides_are_shown_and_their_difference(service: Running, stripe: Till, org: str) -> None:
    stripe.usage = 5
    page = service.call("GET", "/v1/reconciliation", ROOT, params={"org_id": org}).json()
    [line] = page["data"]
    shown = ("overage", "sealed", "delivered", "journal", "stripe", "drift", "verdict", "customer")
    assert [line[name] for name in shown] == [3, 0, 0, 0, 5, -5, "drift", f"cus_{org[4:]}"]
    start = line["period"]["start"]
    same = service.call("GET", "/v1/reconciliation", ROOT, params={"org_id": org, "period": start}).json()
    assert same["data"] == [line]
    asked = [params for _, path, params, _ in stripe.sent if path.endswith("/event_summaries")]
    assert all(int(params[name]) % 60 == 0 for params in asked for name in ("start_time", "end_time"))
    none = {"org_id": org, "period": "2020-01-01T00:00:00Z"}
    assert service.call("GET", "/v1/reconciliation", ROOT, params=none).json()["data"] == []


def test_the_same_as_a_sheet_page_by_page(service: Running, org: str) -> None:
    service.track(org_id=f"{org}-b", feature="scans", quantity=12)
    found: dict[str, str] = {}
    cursor = None
    while True:
        query = {"format": "csv", "limit": 1} | ({"cursor": cursor} if cursor else {})
        response = service.call("GET", "/v1/reconciliation", ROOT, params=query)
        assert response.headers["content-type"].startswith("text/csv")
        found |= {row["org_id"]: row["verdict"] for row in csv.DictReader(io.StringIO(response.text))}
        cursor = response.headers.get("x-next-cursor")
        if cursor is None:
            break
    assert (found[org], found[f"{org}-b"]) == ("even", "unbilled")


def test_stripe_away_is_said_and_is_no_drift(service: Running, stripe: Till, org: str) -> None:
    stripe.refuse = 400, {"error": {"type": "invalid_request_error", "message": "no"}}
    [line] = service.call("GET", "/v1/reconciliation", ROOT, params={"org_id": org}).json()["data"]
    assert (line["verdict"], line["stripe"], line["drift"]) == ("unknown", None, None)


def test_a_look_at_everything_can_be_asked_for(service: Running) -> None:
    response = service.call("POST", "/v1/reconciliation/run", ROOT)
    assert (response.status_code, response.json()) == (202, {"started": True})
    problem(service.call("POST", "/v1/reconciliation/run", token("org-1")), 403, "forbidden")


@pytest.fixture
def shell(service: Running, stripe: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose commands find the service's store and its Stripe."""
    for name, value in (("REDIS_URL", service.server_store.url), ("STRIPE_API_BASE", stripe.url)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY)


@pytest.mark.usefixtures("shell")
def test_the_command_line_tells_a_difference_by_its_exit_status(stripe: Till, org: str) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["stripe", "reconcile", "--org", org, *words])
        return result.exit_code, result.output

    code, text = run()
    assert (code, text.splitlines()[1].split()[3:]) == (0, ["3", "0", "0", "0", "0", "even"])
    stripe.usage = 7
    code, text = run("--json")
    assert (code, json.loads(text)["lines"][0]["drift"]) == (3, -7)
    code, text = run("--csv")
    assert (code, text.splitlines()[1].endswith(",0,7,-7,drift")) == (3, True)


@pytest.mark.usefixtures("shell")
def test_what_nothing_is_compared_of_is_a_dash_on_the_command_line(service: Running, org: str) -> None:
    service.track(org_id=f"{org}-b", feature="scans", quantity=12)
    result = CliRunner().invoke(app, ["stripe", "reconcile", "--org", f"{org}-b"])
    head, line = (row.split() for row in result.output.splitlines())
    assert head == [
        "ORG_ID",
        "FEATURE",
        "PERIOD_START",
        "OVERAGE",
        "DELIVERED",
        "JOURNAL",
        "STRIPE",
        "DRIFT",
        "VERDICT",
    ]
    assert line[3:] == ["2", "0", "-", "-", "-", "unbilled"]


@pytest.mark.usefixtures("shell")
def test_the_command_line_shows_a_repair_before_it_does_it(service: Running, org: str) -> None:
    name = died(service, org, doubt_ms=2 * LAG_MS)

    def run(*words: str) -> list[str]:
        result = CliRunner().invoke(app, ["stripe", "repair", *words])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    planned = f"{name}  {org}  scans    3      lacks"
    assert planned in run()
    assert run()[-1] == "1 to repair: nothing was done; --apply does it"
    assert (
        service.call("GET", "/v1/stripe/outbox", ROOT, params={"org_id": org}).json()["counts"]["dead"]["windows"] == 1
    )
    assert json.loads("\n".join(run("--json")))["steps"][0]["proof"] == "lacks"
    assert run("--apply")[-1] == "1 repaired"
    assert run() == ["none"]
    [entry] = service.call("GET", "/v1/audit", ROOT, params={"org_id": org, "type": "overage_replayed"}).json()["data"]
    assert (entry["actor"].startswith("cli:"), entry["details"]["window"]) == (True, name)


def test_the_command_line_holds_the_books_against_the_second_account_and_tells_what_became_of_windows(
    service: Running, stripe: Till, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", service.server_store.url)

    def run(*words: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["stripe", "reconcile", "--shadow", "--org", org, *words])
        return result.exit_code, result.stdout, result.stderr

    assert "STRIPE_SHADOW_KEY" in run()[2]
    monkeypatch.setenv("STRIPE_SHADOW_KEY", "sk_test_shadow")
    monkeypatch.setenv("STRIPE_SHADOW_API_BASE", stripe.url)
    stripe.usage = 7  # of customers that this account does not know
    code, text, _ = run()
    assert (code, text.splitlines()[1].split()[3:]) == (0, ["3", "0", "0", "0", "0", "even"])
    assert text.splitlines()[2] == "windows: 0 told, 0 refused, 0 too_old, 0 passed"
    assert json.loads(run("--json")[1])["shadow"] == {"told": 0, "refused": 0, "too_old": 0, "passed": 0}
