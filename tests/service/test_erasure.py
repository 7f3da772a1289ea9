"""DELETE /v1/orgs/{org_id} of a running service: what its users see, and what is in the store's file afterwards."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from metering.auth import ADMIN, KEYS, USAGE_WRITE
from tests.service.running import Running, problem, token
from tests.service.subscribing import customer_of, subscribed
from tests.support.wait import wait_until

TAKES_S: Final = 20.0

OF_A_PERSON: Final = (b"jane.doe@example.com", b"workstation-of-jane")
"""What events and settings said of somebody."""

CALLER: Final = token(None, ADMIN)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running(tidies=True, event_retention="24h", overage_push_s=0.1) as running:
        yield running


def erase(service: Running, org: str, **params: Any) -> Any:
    return service.call("DELETE", f"/v1/orgs/{org}", CALLER, params={"reason": "request 4711", **params})


def receipt(service: Running, org: str) -> Any:
    return service.call("GET", f"/v1/orgs/{org}/erasure", CALLER).json()


def in_file(service: Running) -> set[bytes]:
    """Which of those words the store's file has."""
    folder = service.server_store.folder / "appendonlydir"
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    return {word for word in OF_A_PERSON if word in written}


def test_nothing_of_a_person_is_left_in_the_store_or_its_file(service: Running, org: str) -> None:
    person, machine = (word.decode() for word in OF_A_PERSON)
    for number in range(3):
        sent = {"org_id": org, "feature": "scans", "event_id": f"{machine}-{number}", "source": machine,
                "metadata": {"mail": person}}  # fmt: skip
        assert service.call("POST", "/usage/track", CALLER, json=sent).status_code == 200
    grant = {"amount": 5, "reason": f"sorry, {person}"}
    assert service.call("POST", f"/v1/orgs/{org}/grants", CALLER, json=grant).status_code == 201
    assert in_file(service), "something of them was written plainly, so that its absence means something"
    units = service.store.hgetall("{meta}:dataset")
    answer = erase(service, org)
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/orgs/{org}/erasure")
    told = answer.json()
    assert (told["org_id"], told["erased_by"], told["reason"]) == (org, "tester", "request 4711")
    wait_until(lambda: receipt(service, org)["status"] == "erased", timeout_s=TAKES_S, what="all is taken away")
    done = receipt(service, org)
    assert (done["store_file"], done["overage_given_up"], done["stripe_customer_id"]) == ("rewritten", 0, None)
    assert in_file(service) == set()
    assert all(word not in repr(service.store.execute_command("SLOWLOG", "GET", 128)).encode() for word in OF_A_PERSON)
    assert [key for key in service.store.scan_iter(count=1000) if f":{org}" in key.decode()] == [
        next(service.store.scan_iter(match=f"*:o:{org}", count=1000))
    ]
    assert service.store.hgetall("{meta}:dataset") == units


def test_everybody_who_asks_for_it_afterwards_is_told(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    key = service.call("POST", "/v1/keys", token(org, KEYS, USAGE_WRITE), json={"name": "k", "scopes": [USAGE_WRITE]})
    first = erase(service, org).json()
    for method, path, body in (
        ("POST", "/usage/track", {"org_id": org, "feature": "scans"}),
        ("POST", "/v1/check", {"org_id": org, "feature": "scans"}),
        ("GET", f"/usage/{org}", None),
        ("GET", f"/v1/orgs/{org}", None),
        ("PUT", f"/v1/orgs/{org}", {"plan": "free"}),
        ("POST", "/billing/update", {"org_id": org, "plan": "free"}),
        ("POST", f"/v1/orgs/{org}/grants", {"amount": 5, "reason": "x"}),
        ("GET", f"/v1/orgs/{org}/export", None),
        ("GET", f"/v1/audit?org_id={org}", None),
        ("GET", f"/v1/keys?org_id={org}", None),
        ("POST", "/v1/keys", {"name": "k", "scopes": [USAGE_WRITE], "org_id": org}),
        ("POST", "/v1/reservations", {"org_id": org, "feature": "scans", "quantity": 1, "ttl_s": 60}),
    ):
        answer = service.call(method, path, CALLER, json=body)
        assert problem(answer, 410, "org-erased"), path
    events = [{"org_id": org, "feature": "scans", "event_id": "x"}]
    told = service.call("POST", "/v1/events", CALLER, json=events).json()
    assert told["results"][0]["problem"]["code"] == "org-erased", told
    assert erase(service, org, reason="another", write_off="true").json()["job_id"] == first["job_id"]
    wait_until(lambda: receipt(service, org)["status"] == "erased", timeout_s=TAKES_S, what="all is taken away")
    again = service.call("POST", "/usage/track", key.json()["key"], json={"feature": "scans"})
    assert problem(again, 401, "unauthenticated")


def test_a_repeat_with_its_key_is_answered_as_the_first(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    headers = {"Idempotency-Key": f"erase-{org}"}
    path, params = f"/v1/orgs/{org}", {"reason": "request 4711"}
    first, again = (service.call("DELETE", path, CALLER, params=params, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())


def test_what_is_still_to_be_billed_keeps_it(service: Running, org: str) -> None:
    subscribed(service, org)
    told = problem(erase(service, org), 409, "erasure-blocked")
    assert told["blocked_by"][0]["what"] == "subscription"
    paid = f"{org}-paid"
    change = {"org_id": paid, "plan": "professional", "stripe_customer_id": customer_of(paid), "limits": {"scans": 2}}
    assert service.call("POST", "/billing/update", CALLER, json=change).status_code == 200
    service.track(org_id=paid, feature="scans", quantity=9)
    told = problem(erase(service, paid), 409, "erasure-blocked")
    assert (told["blocked_by"][0]["what"], told["detail"]) == ("overage", "7 units of overage are not at Stripe")
    assert service.call("GET", f"/usage/{paid}", CALLER).json()["features"]["scans"]["current"] == 9
    answer = erase(service, paid, write_off="true")
    assert answer.json()["overage_given_up"] == 7, answer.text
    assert receipt(service, paid)["stripe_customer_id"] == customer_of(paid)


def test_it_takes_a_reason_and_an_administrator(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    assert (
        problem(service.call("DELETE", f"/v1/orgs/{org}", CALLER), 422, "validation")["errors"][0]["pointer"]
        == "/reason"
    )
    refused = service.call("DELETE", f"/v1/orgs/{org}", token(org), params={"reason": "x"})
    assert problem(refused, 403, "forbidden")
    assert problem(erase(service, "nobody-at-all"), 404, "org-not-found")
    missing = service.call("GET", f"/v1/orgs/{org}/erasure", CALLER)
    assert problem(missing, 404, "erasure-not-found")
    assert service.call("GET", f"/usage/{org}", CALLER).status_code == 200
