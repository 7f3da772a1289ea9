"""The outbox over HTTP and on the command line: what waits is shown, dead windows go again or are let go, audited."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from metering.auth import ADMIN, BILLING_READ
from metering.cli import app
from tests.service.dying import died, one_dead
from tests.service.running import Running, problem, token

ROOT = token(None, ADMIN, sub="root")


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture
def org(service: Running) -> str:
    name = f"org-{secrets.token_hex(6)}"
    assert service.track(org_id=name, feature="scans", quantity=13).status_code == 200
    return name


def listed(service: Running, bearer: str = ROOT, **query: Any) -> dict[str, Any]:
    response = service.call("GET", "/v1/stripe/outbox", bearer, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def audit(service: Running, org: str, kind: str) -> list[dict[str, Any]]:
    response = service.call("GET", "/v1/audit", ROOT, params={"org_id": org, "type": kind})
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def test_a_dead_window_is_shown_to_its_organisation_and_to_no_other(service: Running, org: str) -> None:
    name = died(service, org)
    page = listed(service, token(org, BILLING_READ))
    [window] = page["data"]
    shown = ("window", "org_id", "units", "state", "customer", "attempts", "error", "first_attempt_at")
    assert [window[field] for field in shown] == [name, org, 3, "dead", "cus_1", 1, "400 no such customer", None]
    assert page["counts"]["dead"]["units"] == 3
    assert name in {one["window"] for one in listed(service, state="dead", limit=500)["data"]}
    assert listed(service, state="delivered", org_id=org)["data"] == []
    foreign = service.call("GET", "/v1/stripe/outbox", token("org-other", BILLING_READ), params={"org_id": org})
    problem(foreign, 404, "org-not-found")


def test_all_pages_have_every_dead_window_once(service: Running) -> None:
    names = set()
    for _ in range(5):
        names.add(one_dead(service))
    found, page = [], listed(service, state="dead", limit=2)
    found += page["data"]
    while page["next_cursor"]:
        page = listed(service, state="dead", limit=2, cursor=page["next_cursor"])
        assert page["counts"] is None
        found += page["data"]
    ids = [one["window"] for one in found]
    assert (len(ids), names <= set(ids)) == (len(set(ids)), True)


def test_a_dead_window_goes_again_by_somebodys_word(service: Running, org: str) -> None:
    name = died(service, org)
    path = f"/v1/stripe/outbox/{name}/replay"
    response = service.call("POST", path, ROOT, headers={"X-Request-Id": "req-1"})
    assert (response.status_code, response.json()["state"]) == (200, "sealed")
    problem(service.call("POST", path, ROOT), 409, "window-not-dead")
    [entry] = audit(service, org, "overage_replayed")
    assert (entry["actor"], entry["details"]["window"], entry["details"]["request_id"]) == ("root", name, "req-1")
    assert listed(service, org_id=org)["counts"]["sealed"]["windows"] == 1


def test_a_dead_window_is_let_go_for_a_reason_alone(service: Running, org: str) -> None:
    name = died(service, org)
    path = f"/v1/stripe/outbox/{name}/discard"
    problem(service.call("POST", path, ROOT, json={}), 422, "validation")
    response = service.call("POST", path, ROOT, json={"reason": "a gift"})
    assert (response.status_code, response.json()["state"], response.json()["error"]) == (200, "written_off", "a gift")
    problem(service.call("POST", path, ROOT, json={"reason": "a gift"}), 409, "window-not-dead")
    [entry] = audit(service, org, "overage_written_off")
    assert (entry["actor"], entry["details"]["reason"], entry["details"]["units"]) == ("root", "a gift", 3)


def test_the_command_line_does_the_same(service: Running, org: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", service.server_store.url)
    name = died(service, org)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["stripe", "outbox", *words])
        return result.output if result.exit_code == 0 else f"{result.exit_code}: {result.stderr}"

    [head, line] = run("list", "--org", org, "--dead").splitlines()
    assert (head.split()[0], line.split()[:5]) == ("WINDOW", [name, org, "scans", "3", "dead"])
    assert f'"window": "{name}"' in run("list", "--json")
    assert run("replay", name) == "1 windows wait to be sent\n"
    assert "The window is not dead" in run("replay", name) or "it is sealed" in run("replay", name)
    assert audit(service, org, "overage_replayed")[0]["actor"].startswith("cli:")
    service.track(org_id=org, feature="scans", quantity=2)
    second = died(service, org)
    for reason in ("", "a\x1bgift"):
        assert run("discard", second, "--reason", reason).startswith("2: ")
    assert run("discard", second, "--reason", "a gift") == "1 windows written off\n"
    assert run("list", "--org", org, "--dead") == "none\n"


def test_without_a_key_for_stripe_nothing_is_compared(service: Running) -> None:
    problem(service.call("GET", "/v1/reconciliation", ROOT), 409, "stripe-not-configured")
    problem(service.call("POST", "/v1/reconciliation/run", ROOT), 409, "stripe-not-configured")
