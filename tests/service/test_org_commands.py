"""`metering org show`: one screen, true to what the API says, that answers a support call."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from metering.auth import ADMIN
from metering.cli import app
from metering.org_marks import mark_of
from metering.store.fields import FieldCodec
from metering.store.keys import DATASET, Keys
from metering.store.org import CUSTOMER
from tests.service.dying import died
from tests.service.running import Running, token

ROOT: Final = token(None, ADMIN, sub="root")
LINES_MAX: Final = 40


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service with an organisation that has something of everything."""
    with Running(event_retention="1d") as running:
        for number in range(8):
            track(running, "org-busy", f"e-{number}", 2)
        died(running, "org-busy")
        given = {"amount": 40, "reason": "a gift"}
        assert running.call("POST", "/v1/orgs/org-busy/grants", ROOT, json=given).status_code == 201
        track(running, "org-quiet", "e-1", 1)
        yield running


def track(service: Running, org: str, event_id: str, quantity: int) -> None:
    response = service.track(org_id=org, feature="scans", event_id=event_id, quantity=quantity)
    assert response.status_code == 200, response.text


@pytest.fixture(autouse=True)
def beside(service: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The environment of a command beside that service."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", service.server_store.url)
    monkeypatch.setenv("EVENT_RETENTION", "1d")


def show(*words: str) -> Result:
    return CliRunner().invoke(app, ["org", "show", *words])


def told(*words: str) -> dict[str, Any]:
    result = show(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_it_says_what_the_api_says(service: Running) -> None:
    said = service.call("GET", "/usage/org-busy", ROOT).json()
    assert {name: told("org-busy")[name] for name in said} == said
    assert said["features"]["scans"]["overage"] == 6


def test_it_says_what_lies_beside_it(service: Running) -> None:
    view = told("org-busy")
    assert [one["event_id"] for one in view["last_events"]] == ["e-7", "e-6", "e-5", "e-4", "e-3"]
    types = [one["type"] for one in view["last_billing_events"]]
    assert (types[0], types[-1], len(types)) == ("credits_granted", "org_created", 4)
    assert (view["subscription"], view["grace_ends_at"]) == (None, None)
    assert view["outbox"]["dead"] == {"windows": 1, "units": 6}
    assert view["credits"]["balance"] == 40
    assert view["sums_broken_since"] is None


def test_what_stripe_said_and_how_long_patience_lasts_are_told(service: Running) -> None:
    key, at_ms = Keys(64).profile("org-quiet"), 1_795_635_315_000
    subscription = ["sub_1", "past_due", "professional", at_ms, at_ms, at_ms, at_ms + 1, True]
    told_of = {"subscription": json.dumps(subscription), CUSTOMER: "cus_1"}
    sealed = {name: FieldCodec().encode("org-quiet", name, text) for name, text in told_of.items()}
    service.store.hset(key, mapping={**sealed, "grace": at_ms})
    view, output = told("org-quiet"), show("org-quiet").output
    service.store.hdel(key, "grace", *sealed)
    assert view["subscription"] == {"id": "sub_1", "status": "past_due", "cancel_at_period_end": True}
    assert view["grace_ends_at"] == "2026-11-25T19:35:15Z"
    assert "cus_1, sub_1 past_due, ends with its period" in output
    assert "2026-11-25T19:35:15Z" in output


def test_all_of_it_fits_on_a_screen(service: Running) -> None:
    output = show("org-busy").output
    assert len(output.splitlines()) <= LINES_MAX
    for part in ("free", "1 dead (6 units)", "scans", "16", "e-7", "40 (0 reserved, 0 owed", "credits_granted", "hold"):
        assert part in output, part


def test_who_has_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENT_RETENTION", "0")
    output = show("org-quiet").output
    assert "never had any" in output
    assert "nothing that Stripe does not have" in output
    assert "EVENT_RETENTION is 0" in output
    assert told("org-quiet")["last_events"] is None


def test_words_in_the_store_do_not_move_the_terminal(service: Running) -> None:
    key = Keys(64).trail("org-quiet")
    service.store.xadd(key, {"at": "1", "type": "\x1b[2Jforged", "note": "a\u202eb\nc"})
    output = show("org-quiet").output
    assert "?[2Jforged" in output
    assert "note=a?b?c" in output


def test_a_mark_of_the_log_finds_its_organisation(service: Running) -> None:
    secret = bytes.fromhex(service.store.hget(DATASET, "secret").decode())
    mark = mark_of("org-busy", secret)
    assert (told(mark)["org_id"], told("org-busy")["log_mark"]) == ("org-busy", mark)
    assert show("o_0123456789abcdef").exit_code == 1


def test_sums_that_do_not_hold_are_shouted(service: Running) -> None:
    keys = Keys(64)
    key = keys.shared("frozen", keys.partition("org-quiet"))
    service.store.zadd(key, {"org-quiet": 1_795_635_315_000})
    output = show("org-quiet").output
    service.store.zrem(key, "org-quiet")
    assert "DO NOT HOLD since 2026-11-25T19:35:15Z" in output


def test_who_is_not_there_is_told_with_a_cure() -> None:
    result = show("org-nobody")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "error: no organisation org-nobody")
    assert len(result.stderr.splitlines()) == 2


def erase(*words: str) -> Result:
    return CliRunner().invoke(app, ["org", "erase", "--wait", "0", *words])  # no job runs here that would finish it


def test_it_erases_and_prints_the_receipt(service: Running) -> None:
    track(service, "org-gone", "e-1", 1)
    asked = erase("org-gone", "--reason", "request 7")
    assert (asked.exit_code, service.call("GET", "/usage/org-gone", ROOT).status_code) == (1, 200)
    result = erase("org-gone", "--reason", "request 7", "--yes")
    assert result.exit_code == 0, result.stderr
    receipt = json.loads(result.output)
    assert receipt == service.call("GET", "/v1/orgs/org-gone/erasure", ROOT).json()
    assert receipt["erased_by"].startswith("cli:")
    assert "erased" in show("org-gone").stderr
    missing = erase("org-none", "--reason", "request 8", "--yes")
    assert (missing.exit_code, "No such organisation" in missing.stderr) == (1, True), missing.stderr
