"""Idempotency-Key on every change of the table, over HTTP: a route that is added is held to it as well."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from metering.api.document import document
from metering.api.routes import ROUTES
from metering.auth import ADMIN
from tests.service.running import Running, problem, token
from tests.service.test_tenancy import ROWS, TABLE, made
from tests.support.selling import with_packages
from tests.support.stripe_till import till

KEYED = sorted(key for key, route in TABLE.items() if route.keyed and key in ROWS)


def fresh() -> str:
    """A key nobody used before."""
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service in which every change can be made, those at Stripe too."""
    known: dict[str, Any] = {
        "stripe_secret_key": "sk_test_1",
        "plans_file": with_packages(tmp_path_factory.mktemp("plans")),
    }
    with till() as sells, Running(stripe_api_base=sells.url, **known) as running:
        yield running


@pytest.fixture
def own(service: Running) -> str:
    """An organisation that exists."""
    return made(service)


def test_there_are_changes() -> None:
    assert ("PUT", "/v1/orgs/{org_id}") in KEYED
    assert ("POST", "/usage/track") not in KEYED


@pytest.mark.parametrize("key", KEYED, ids=" ".join)
def test_a_change_is_answered_again_as_it_was(service: Running, key: tuple[str, str], own: str) -> None:
    path, body = ROWS[key].sent(own)
    headers, sent = {"Idempotency-Key": fresh()}, ({} if body is None else {"json": body})
    first = service.call(key[0], path, token(None, ADMIN), headers=headers, **sent)
    assert first.status_code == ROWS[key].status, first.text
    with service.unchanged():
        again = service.call(key[0], path, token(None, ADMIN), headers=headers, **sent)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    reused = service.call(key[0], f"{path}?other=1", token(None, ADMIN), headers=headers, **sent)
    assert reused.status_code == 422


@pytest.mark.parametrize("key", KEYED, ids=" ".join)
def test_a_key_tells_nothing_of_what_others_did(service: Running, key: tuple[str, str], own: str, org: str) -> None:
    """A customer with the administrator's key gets what it gets without one."""
    path, body = ROWS[key].sent(own)
    headers, sent = {"Idempotency-Key": fresh()}, ({} if body is None else {"json": body})
    service.call(key[0], path, token(None, ADMIN), headers=headers, **sent)
    bearer = token(org)
    plain, keyed = (service.call(key[0], path, bearer, headers=given, **sent) for given in ({}, headers))
    assert (keyed.status_code, keyed.json()["code"]) == (plain.status_code, plain.json()["code"])
    assert keyed.status_code in {403, 404}
    assert "idempotency-replayed" not in keyed.headers


def test_of_20_at_once_one_makes_the_organisation(service: Running, org: str) -> None:
    headers = {"Idempotency-Key": fresh()}

    def put(_: int) -> tuple[int, bytes]:
        response = service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "free"}, headers=headers)
        return response.status_code, response.content

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(put, range(20)))
    made = {answer for answer in found if answer[0] == 201}
    assert len(made) == 1
    assert {status for status, _ in found} <= {201, 409}
    assert put(0) in made


def test_a_refusal_is_given_again_though_it_would_now_succeed(service: Running, org: str) -> None:
    headers = {"Idempotency-Key": fresh()}
    sent = {"org_id": org, "plan": "gold"}
    first = service.call("POST", "/billing/update", token(None, ADMIN), json=sent, headers=headers)
    problem(first, 404, "plan-unknown")
    again = service.call("POST", "/billing/update", token(None, ADMIN), json=sent, headers=headers)
    assert (again.status_code, again.content) == (404, first.content)
    assert again.headers["idempotency-replayed"] == "true"


def test_a_key_that_is_none_is_told(service: Running, org: str) -> None:
    with service.unchanged():
        for key in ("a b", "a,b", '"a'):
            response = service.call(
                "PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={}, headers={"Idempotency-Key": key}
            )
            body = problem(response, 422, "validation")
            assert [fault["code"] for fault in body["errors"]] == ["idempotency-key"]


def test_the_document_says_where_a_key_is_heeded() -> None:
    shown = document(ROUTES, "1")
    reference = "#/components/parameters/IdempotencyKey"
    for (method, path), route in TABLE.items():
        entry = shown["paths"][path][method.lower()]
        named = [shown.get("$ref", "") for shown in entry.get("parameters", [])]
        assert (reference + "OfSecret" * route.secret in named) == route.keyed, path
        if route.keyed:
            assert (
                "idempotency-in-progress"
                in entry["responses"]["409"]["content"]["application/problem+json"]["examples"]
            )
            replayed = [
                status for status, one in entry["responses"].items() if "Idempotency-Replayed" in one["headers"]
            ]
            assert set(map(str, route.answers)) <= set(replayed)
