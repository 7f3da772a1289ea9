"""Reservations over HTTP: made, looked at, committed, extended, released, over; and what they do to the balance."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from metering.auth import ADMIN, USAGE_READ
from tests.service.holding import Holding, holding
from tests.service.running import Running, problem, token


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose plan blocks, caps and counts on."""
    with holding(tmp_path_factory.mktemp("plans"), event_retention="24h") as service:
        yield service


@pytest.fixture
def acme(running: Running, org: str) -> Holding:
    """An organisation of the test's own, which nobody has heard of yet."""
    return Holding(running, org)


# ── made ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reservation_keeps_units_back_from_everybody_else(acme: Holding) -> None:
    made = acme.reserve(4)
    assert made.status_code == 201
    told = made.json()
    expires = datetime.fromisoformat(told.pop("expires_at"))
    assert 590 < (expires - datetime.now(expires.tzinfo)).total_seconds() <= 600
    assert told == {
        "id": "r1", "org_id": acme.org_id, "feature": "checks", "requested": 4, "quantity": 4, "status": "held",
        "committed": 0, "current_usage": 0, "limit": 10, "remaining": 6, "reserved": 4,
    }  # fmt: skip
    assert acme.figures() == (0, 4, 6)
    refused = problem(acme.track(7), 403, "quota-exceeded")
    assert (refused["reserved"], refused["remaining"], refused["current_usage"]) == (4, 6, 0)
    assert acme.track(6).json()["remaining"] == 0
    assert acme.figures() == (6, 4, 0)


def test_every_usage_view_shows_what_is_reserved(acme: Holding) -> None:
    acme.reserve(4)
    own = token(acme.org_id)
    for path in ("/usage", "/api/usage", f"/usage/{acme.org_id}", f"/v1/orgs/{acme.org_id}"):
        view = acme.service.call("GET", path, own).json()["features"]["checks"]
        assert (view["reserved"], view["remaining"]) == (4, 6), path
    page = acme.service.call("GET", "/v1/orgs?limit=500", acme.admin).json()["data"]
    (listed,) = [entry for entry in page if entry["org_id"] == acme.org_id]
    assert listed["features"]["checks"]["reserved"] == 4
    for method, path in (("PUT", f"/v1/orgs/{acme.org_id}"), ("POST", "/billing/update")):
        sent = {"limits": {"checks": 20}} | ({"org_id": acme.org_id} if method == "POST" else {})
        view = acme.service.call(method, path, acme.admin, json=sent).json()["features"]["checks"]
        assert (view["reserved"], view["remaining"]) == (4, 16), path
    preview = acme.call("POST", "/v1/plans/pro/preview").json()["features"]["checks"]
    assert (preview["present"]["remaining"], preview["changed"]["remaining"]) == (16, 996)


def test_the_same_id_with_the_same_content_is_the_same_reservation(acme: Holding) -> None:
    first = acme.reserve(4)
    again = acme.reserve(4, ttl_s=60)
    assert (again.status_code, again.json()) == (201, first.json())
    assert acme.figures() == (0, 4, 6)


@pytest.mark.parametrize(("end", "status"), [("commit", "committed"), ("release", "released"), ("wait", "expired")])
def test_it_is_answered_again_with_its_state_after_it_was_settled(acme: Holding, end: str, status: str) -> None:
    """And keeps nothing back a second time."""
    first = acme.reserve(4, ttl_s=1 if end == "wait" else 600).json()
    if end == "wait":
        acme.ended("/v1/reservations/r1")
    else:
        assert getattr(acme, end)().is_success
    used = acme.figures()
    again = acme.reserve(4)
    assert again.status_code == 201
    facts = ("id", "org_id", "feature", "requested", "quantity", "expires_at", "limit")
    assert {name: again.json()[name] for name in facts} == {name: first[name] for name in facts}
    assert (again.json()["status"], again.json()["reserved"]) == (status, 0)
    assert acme.figures() == used


@pytest.mark.parametrize("other", [{"quantity": 5}, {"feature": "calls"}])
def test_the_same_id_with_other_content_is_in_conflict(acme: Holding, other: dict[str, Any]) -> None:
    acme.reserve(4)
    with acme.unchanged():
        refused = acme.call(
            "POST", "/v1/reservations", **{"id": "r1", "feature": "checks", "quantity": 4, "ttl_s": 9} | other
        )
    problem(refused, 409, "hold-conflict")


def test_without_an_id_one_is_made(acme: Holding) -> None:
    first, second = (acme.reserve(1, None).json()["id"] for _ in range(2))
    assert first.startswith("res_")
    assert first != second
    assert acme.figures() == (0, 2, 8)
    assert acme.commit(first).json()["event_id"] == first


def test_under_an_idempotency_key_every_try_makes_the_same(acme: Holding) -> None:
    """The answer is kept; and were it not, the id would be the same."""
    body = {"org_id": acme.org_id, "feature": "checks", "quantity": 2, "ttl_s": 60}
    answers = [
        acme.service.call(
            "POST", "/v1/reservations", acme.admin, json=body, headers={"Idempotency-Key": f"k-{acme.org_id}"}
        )
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert len(answers[0].json()["id"]) == len("res_") + 32
    assert acme.figures() == (0, 2, 8)


def test_what_does_not_fit_is_refused_with_the_limit_that_decided_and_what_would_help(acme: Holding) -> None:
    acme.track(3)
    acme.reserve(5)
    with acme.unchanged():
        told = problem(acme.reserve(3, "r2"), 403, "quota-exceeded")
    assert (told["decided_by"], told["limit"], told["current_usage"], told["reserved"]) == ("plan_limit", 10, 3, 5)
    assert (told["remaining"], told["requested"], told["upgrade"]) == (2, 3, {"plan": "pro"})
    assert told["reset_date"].endswith("T00:00:00Z")
    assert acme.reserve(2, "r2").status_code == 201


def test_where_the_plan_caps_less_is_kept_and_where_it_counts_on_all_of_it(acme: Holding) -> None:
    capped = acme.reserve(12, feature="calls").json()
    assert (capped["requested"], capped["quantity"], capped["remaining"]) == (12, 10, 0)
    above = acme.reserve(12, "r2", feature="scans").json()
    assert (above["quantity"], above["remaining"], above["reserved"]) == (12, 0, 12)
    assert acme.commit("r2").json()["overage"] == 2


def test_a_feature_that_is_off_or_unknown_is_told(acme: Holding) -> None:
    problem(acme.reserve(1, feature="closed"), 403, "feature-disabled")
    told = problem(acme.reserve(1, feature="check"), 404, "feature-unknown")
    assert told["nearest"] == "checks"


def test_a_reservation_is_an_event_to_the_rate_limit_and_its_commit_is_none(acme: Holding) -> None:
    acme.service.call("PUT", f"/v1/orgs/{acme.org_id}", acme.admin, json={"plan": "pro"})
    answers = [acme.reserve(1, f"r{number}") for number in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    problem(answers[2], 429, "rate-limited")
    assert answers[1].headers["ratelimit"].startswith('"events";r=0')
    assert int(answers[2].headers["retry-after"]) > 0
    assert acme.commit("r0").status_code == 200
    assert acme.reserve(1, "r0").status_code == 201  # told of, not made again


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"quantity": 0, "ttl_s": 0}, ["/quantity", "/ttl_s"]),
        ({"quantity": 10**12 + 1, "ttl_s": 86_401}, ["/quantity", "/ttl_s"]),
        ({"id": "a b", "quantity": "1"}, ["/id", "/quantity"]),
        ({"id": ".."}, ["/id"]),
        ({"id": "a" * 65}, ["/id"]),
        ({"id": "a|b", "more": 1}, ["/id", "/more"]),
        ({"feature": None, "ttl_s": 1.5}, ["/feature", "/ttl_s"]),
    ],
)
def test_every_fault_of_a_request_is_told_and_nothing_is_written(
    acme: Holding, body: dict[str, Any], pointers: list[str]
) -> None:
    asked = {"feature": "checks", "quantity": 1, "ttl_s": 9} | body
    with acme.unchanged():
        told = problem(acme.call("POST", "/v1/reservations", **asked), 422, "validation")
    assert sorted(fault["pointer"] for fault in told["errors"]) == pointers


def test_an_organisation_has_a_thousand_open_holds_at_most(acme: Holding) -> None:
    acme.service.call("PUT", f"/v1/orgs/{acme.org_id}", acme.admin, json={"limits": {"checks": None}})
    for number in range(1000):
        assert acme.reserve(1, f"r{number}").status_code == 201
    with acme.unchanged():
        problem(acme.reserve(1, "one-more"), 409, "too-many-holds")
        problem(acme.lease(1, "one-more"), 409, "too-many-holds")
        assert acme.reserve(1, "r7").json()["status"] == "held"
    acme.release("r7")
    assert acme.reserve(1, "one-more").status_code == 201


# ── committed ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "recorded"), [({}, 4), ({"quantity": None}, 4), ({"quantity": 1}, 1), ({"quantity": 9}, 9)]
)
def test_a_commit_counts_what_was_used_and_frees_the_rest(acme: Holding, sent: dict[str, Any], recorded: int) -> None:
    acme.reserve(4)
    told = acme.commit(**sent).json()
    assert told.pop("period")["start"] < told.pop("reset_date")
    assert told == {
        "org_id": acme.org_id, "feature": "checks", "current_usage": recorded, "limit": 10, "remaining": 10 - recorded,
        "event_id": "r1", "allowed": True, "recorded": recorded, "duplicate": False, "overage": 0, "unlimited": False,
        "thresholds_crossed": [75, 80, 90] if recorded == 9 else [], "decided_by": "plan_limit",
    }  # fmt: skip
    assert acme.figures() == (recorded, 0, 10 - recorded)
    assert (acme.reservation()["status"], acme.reservation()["committed"]) == ("committed", recorded)


def test_a_commit_above_the_reservation_is_decided_as_any_event(acme: Holding) -> None:
    """All of it or nothing where the plan blocks; refused, the reservation stays as it is."""
    acme.reserve(4)
    acme.track(5)
    told = problem(acme.commit(quantity=6), 403, "quota-exceeded")
    assert (told["requested"], told["current_usage"]) == (6, 5)
    assert acme.figures() == (5, 4, 1)
    assert acme.commit(quantity=5).json()["recorded"] == 5
    capped = [acme.reserve(4, "c1", feature="calls"), acme.track(5, feature="calls"), acme.commit("c1", quantity=9)]
    assert capped[-1].json()["recorded"] == 5
    assert acme.figures("calls") == (10, 0, 0)


def test_what_is_kept_counts_though_the_limit_was_lowered_since(acme: Holding) -> None:
    acme.reserve(8)
    acme.service.call("PUT", f"/v1/orgs/{acme.org_id}", acme.admin, json={"limits": {"checks": 2}})
    assert acme.figures() == (0, 8, 0)
    problem(acme.track(1), 403, "quota-exceeded")
    assert acme.commit().json()["recorded"] == 8


def test_the_same_commit_again_is_a_duplicate(acme: Holding) -> None:
    acme.reserve(4)
    first, again = acme.commit(quantity=3).json(), acme.commit(quantity=3).json()
    assert (first["recorded"], first["duplicate"]) == (3, False)
    assert (again["recorded"], again["duplicate"], again["current_usage"]) == (0, True, 3)
    assert acme.figures() == (3, 0, 7)


@pytest.mark.parametrize(
    ("first", "then"), [({"quantity": 3}, {"quantity": 2}), ({"quantity": 3}, {}), (None, {"quantity": 3})]
)
def test_one_that_was_settled_otherwise_is_told_so(
    acme: Holding, first: dict[str, Any] | None, then: dict[str, Any]
) -> None:
    acme.reserve(4)
    assert (acme.release() if first is None else acme.commit(**first)).is_success
    with acme.unchanged():
        told = problem(acme.commit(**then), 409, "hold-settled")
    assert told["state"] == ("released" if first is None else "committed")


def test_an_event_may_commit_a_reservation_and_the_other_way_then_repeats_it(acme: Holding) -> None:
    acme.reserve(4)
    assert acme.track(3, reservation_id="r1").json()["recorded"] == 3
    assert acme.commit(quantity=3).json()["duplicate"]
    assert acme.figures() == (3, 0, 7)


def test_what_is_committed_is_in_the_metrics_and_what_is_kept_is_not(acme: Holding) -> None:
    units = acme.service.recorder.units
    acme.reserve(4)
    acme.lease(3)
    assert units[acme.org_id] == 0
    for _ in range(2):
        acme.commit(quantity=3)
        acme.settle(2)
    assert units[acme.org_id] == 5


def test_what_is_committed_is_in_history_and_in_the_log_of_raw_events(acme: Holding) -> None:
    acme.reserve(4)
    acme.commit(quantity=3)
    rows = acme.service.call("GET", f"/usage/{acme.org_id}/history", acme.admin).json()["data"]
    assert [(row["feature"], row["value"]) for row in rows] == [("checks", 3)]
    entries = acme.call("GET", "/v1/events").json()["data"]
    assert [(entry["event_id"], entry["recorded"]) for entry in entries] == [("r1", 3)]


# ── over ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_that_expired_counts_for_nothing_from_that_instant_on(acme: Holding) -> None:
    acme.reserve(10, ttl_s=1)
    acme.ended("/v1/reservations/r1")
    assert acme.figures() == (0, 0, 10)
    assert acme.call("POST", "/v1/plans/pro/preview").json()["features"]["checks"]["present"]["remaining"] == 10
    assert acme.call("GET", "/v1/billing/projection").json()["features"]["checks"]["blocked"] == "no"
    with acme.unchanged():
        told = problem(acme.commit(), 409, "reservation-expired")
        problem(acme.extend(60), 409, "reservation-expired")
    assert (told["state"], told["id"]) == ("expired", "r1")
    assert acme.track(8).status_code == 200
    problem(acme.commit(quantity=3, late_commit=True), 403, "quota-exceeded")
    late = acme.commit(quantity=2, late_commit=True).json()
    assert (late["recorded"], late["current_usage"]) == (2, 10)
    assert acme.commit(quantity=2, late_commit=True).json()["duplicate"]
    assert acme.figures() == (10, 0, 0)


def test_extended_it_lives_longer_from_now_on(acme: Holding) -> None:
    first = acme.reserve(4, ttl_s=2).json()
    longer = acme.extend(600)
    assert longer.status_code == 200
    assert longer.json()["expires_at"] > first["expires_at"]
    assert longer.json() == acme.reservation()
    assert set(first) - set(longer.json()) == {"current_usage", "limit", "remaining", "reserved"}
    acme.commit()
    problem(acme.extend(60), 409, "hold-settled")


def test_released_it_is_free_again_however_often_that_is_asked(acme: Holding) -> None:
    acme.reserve(4)
    for _ in range(3):
        answer = acme.release()
        assert (answer.status_code, answer.content, "content-type" in answer.headers) == (204, b"", False)
        assert acme.figures() == (0, 0, 10)
    assert acme.reservation()["status"] == "released"


def test_what_expired_may_be_released_and_what_was_committed_may_not(acme: Holding) -> None:
    acme.reserve(4, ttl_s=1)
    acme.ended("/v1/reservations/r1")
    assert acme.release().status_code == 204
    acme.reserve(4, "r2")
    acme.commit("r2", quantity=1)
    with acme.unchanged():
        told = problem(acme.release("r2"), 409, "hold-settled")
    assert told["committed"] == 1


# ── not there ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/reservations/{}", {}),
        ("POST", "/v1/reservations/{}/commit", {}),
        ("POST", "/v1/reservations/{}/extend", {"ttl_s": 9}),
        ("DELETE", "/v1/reservations/{}", {}),
        ("GET", "/v1/leases/{}", {}),
        ("POST", "/v1/leases/{}/settle", {"used": 1}),
        ("POST", "/v1/leases/{}/settle", {"used": 0}),
    ],
)
def test_what_is_not_there_is_not_found(acme: Holding, method: str, path: str, body: dict[str, Any]) -> None:
    """Nor is a lease where a reservation is asked for, nor the other way round."""
    with acme.unchanged():
        problem(acme.call(method, path.format("r1"), **body), 404, "org-not-found")
    kind = "lease" if "reservations" in path else "reserve"
    assert getattr(acme, kind)(2, "other").status_code == 201
    with acme.unchanged():
        for name in ("r1", "other"):
            told = problem(acme.call(method, path.format(name), **body), 404, "hold-not-found")
            assert told["id"] == name
        malformed = problem(acme.call(method, path.format("a%7Cb"), **body), 422, "validation")
    assert [fault["code"] for fault in malformed["errors"]] == ["hold-id"]


def test_looking_takes_the_scope_to_read_and_nothing_more(acme: Holding) -> None:
    acme.reserve(4)
    reader = token(acme.org_id, USAGE_READ)
    assert acme.service.call("GET", "/v1/reservations/r1", reader).json()["status"] == "held"
    problem(acme.service.call("POST", "/v1/reservations/r1/commit", reader, json={}), 403, "forbidden")


def test_the_tokens_own_organisation_need_not_be_named(acme: Holding) -> None:
    own = token(acme.org_id)
    body = {"id": "r1", "feature": "checks", "quantity": 2, "ttl_s": 60}
    assert acme.service.call("POST", "/v1/reservations", own, json=body).json()["org_id"] == acme.org_id
    assert acme.service.call("POST", "/v1/reservations/r1/commit", own, json={}).json()["recorded"] == 2
    nobody = acme.service.call("GET", "/v1/reservations/r1", token(None, ADMIN))
    assert [fault["pointer"] for fault in problem(nobody, 422, "validation")["errors"]] == ["/org_id"]
