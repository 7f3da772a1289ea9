"""Leases over HTTP: what is granted, settled, given back, and what becomes of one that nobody settled."""

from collections.abc import Iterator

import pytest

from tests.service.holding import Holding, holding
from tests.service.running import Running, problem
from tests.support.wait import wait_until

CHARGED_S = 30.0
"""The job that charges looks every ten seconds."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose plan blocks, caps and counts on."""
    with holding(tmp_path_factory.mktemp("plans")) as service:
        yield service


@pytest.fixture
def acme(running: Running, org: str) -> Holding:
    """An organisation of the test's own."""
    return Holding(running, org)


def test_a_lease_grants_what_is_asked_for_and_keeps_it_back(acme: Holding) -> None:
    made = acme.lease(4)
    assert made.status_code == 201
    told = made.json()
    assert told.pop("expires_at")
    assert told == {
        "lease_id": "l1", "org_id": acme.org_id, "feature": "checks", "requested": 4, "granted": 4, "status": "held",
        "used": 0, "at_expiry": "charge", "current_usage": 0, "limit": 10, "remaining": 6, "reserved": 4,
    }  # fmt: skip
    assert acme.figures() == (0, 4, 6)
    problem(acme.track(7), 403, "quota-exceeded")


@pytest.mark.parametrize("feature", ["checks", "calls"])
def test_a_lease_grants_what_is_left_and_no_more(acme: Holding, feature: str) -> None:
    acme.track(7, feature=feature)
    told = acme.lease(5, feature=feature).json()
    assert (told["requested"], told["granted"], told["remaining"], told["reserved"]) == (5, 3, 0, 3)
    with acme.unchanged():
        refused = problem(acme.lease(5, "l2", feature=feature), 403, "quota-exceeded")
    assert (refused["decided_by"], refused["remaining"], refused["upgrade"]) == ("plan_limit", 0, {"plan": "pro"})


def test_where_the_plan_counts_on_a_lease_is_granted_above_the_limit_too(acme: Holding) -> None:
    acme.track(10, feature="scans")
    assert acme.lease(5, feature="scans").json()["granted"] == 5
    assert acme.settle(5).json()["overage"] == 5


def test_the_same_id_gives_the_same_lease_again(acme: Holding) -> None:
    acme.track(7)
    first, again = acme.lease(5), acme.lease(5)
    assert (again.status_code, again.json()) == (201, first.json())
    problem(acme.lease(4), 409, "hold-conflict")
    problem(acme.reserve(5, "l1"), 409, "hold-conflict")
    assert acme.lease(1, None, feature="calls").json()["lease_id"].startswith("lease_")
    assert acme.figures() == (7, 3, 0)


@pytest.mark.parametrize("used", [1, 4])
def test_what_was_used_of_it_counts_and_the_rest_is_free_again(acme: Holding, used: int) -> None:
    acme.lease(4)
    told = acme.settle(used).json()
    shown = ("status", "used", "recorded", "overage", "duplicate", "current_usage", "remaining", "reserved")
    assert tuple(told[name] for name in shown) == ("settled", used, used, 0, False, used, 10 - used, 0)
    again = acme.settle(used).json()
    assert tuple(again[name] for name in shown) == ("settled", used, 0, 0, True, used, 10 - used, 0)
    assert (acme.leased()["status"], acme.leased()["used"]) == ("settled", used)
    assert acme.figures() == (used, 0, 10 - used)


def test_what_was_granted_counts_though_the_limit_was_lowered_or_the_feature_taken_away(acme: Holding) -> None:
    acme.lease(8)
    acme.service.call("PUT", f"/v1/orgs/{acme.org_id}", acme.admin, json={"limits": {"checks": 0}})
    assert acme.settle(8).json()["recorded"] == 8


def test_more_than_was_granted_is_decided_as_any_event(acme: Holding) -> None:
    acme.lease(4)
    acme.track(5)
    problem(acme.settle(6), 403, "quota-exceeded")
    assert acme.figures() == (5, 4, 1)
    told = acme.settle(5).json()
    assert (told["granted"], told["used"], told["recorded"]) == (4, 5, 5)
    assert acme.figures() == (10, 0, 0)


def test_nothing_used_gives_all_of_it_back(acme: Holding) -> None:
    acme.track(1)
    acme.lease(4)
    told, again = acme.settle(0).json(), acme.settle(0).json()
    assert (told["status"], told["used"], told["recorded"], told["duplicate"]) == ("released", 0, 0, False)
    assert (told["current_usage"], told["limit"], told["remaining"], told["reserved"]) == (1, 10, 9, 0)
    assert told | {"duplicate": True} == again
    problem(acme.settle(1), 409, "hold-settled")


def test_one_that_was_settled_otherwise_is_told_so(acme: Holding) -> None:
    acme.lease(4)
    acme.settle(3)
    with acme.unchanged():
        for used in (0, 2, 4):
            assert problem(acme.settle(used), 409, "hold-settled")["committed"] == 3


@pytest.mark.parametrize(
    ("body", "pointers"),
    [({"ttl_s": 301}, ["/ttl_s"]), ({"quantity": 0, "ttl_s": 0}, ["/quantity", "/ttl_s"]), ({"id": ".x"}, ["/id"])],
)
def test_faults_of_a_request_are_told(acme: Holding, body: dict[str, object], pointers: list[str]) -> None:
    asked: dict[str, object] = {"feature": "checks", "quantity": 1, "ttl_s": 9} | body
    with acme.unchanged():
        told = problem(acme.call("POST", "/v1/leases", **asked), 422, "validation")
    assert sorted(fault["pointer"] for fault in told["errors"]) == pointers


@pytest.mark.parametrize("used", [-1, 10**12 + 1, "1", None])
def test_units_used_are_a_whole_number(acme: Holding, used: object) -> None:
    acme.lease(1)
    told = problem(acme.call("POST", "/v1/leases/l1/settle", used=used), 422, "validation")
    assert [fault["pointer"] for fault in told["errors"]] == ["/used"]


def test_one_that_nobody_settled_is_charged_or_let_go_of_as_the_catalogue_says_of_the_feature(acme: Holding) -> None:
    """From its end on it bounds the spending as before, or counts for nothing; within seconds it is written down."""
    acme.lease(6, ttl_s=1)
    assert acme.lease(6, "l2", ttl_s=1, feature="calls").json()["at_expiry"] == "release"
    for name in ("l1", "l2"):
        acme.ended(f"/v1/leases/{name}")
    assert acme.figures("calls") == (0, 0, 10)
    assert sum(acme.figures()[:2]) == 6
    for name in ("l1", "l2"):
        for used in (0, 6):
            problem(acme.settle(used, name), 409, "reservation-expired")
    wait_until(lambda: acme.leased()["status"] == "charged", timeout_s=CHARGED_S, what="the lease is charged")
    assert acme.leased()["used"] == 6
    assert acme.figures() == (6, 0, 4)
    assert acme.leased("l2")["status"] == "expired"
    for used in (0, 6):
        problem(acme.settle(used), 409, "reservation-expired")
    assert acme.figures() == (6, 0, 4)
