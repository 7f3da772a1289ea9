"""Who may do what to whom: every route of the table, in every role, on every kind of organisation."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from metering.api.models.holds import LEASE_S_MAX
from metering.api.route import OPEN, SIGNED_IN, Route
from metering.api.routes import ROUTES
from metering.auth import ADMIN
from tests.service.running import OWN, Running, problem, token
from tests.service.subscribing import subscribed
from tests.support.selling import with_packages
from tests.support.stripe_mail import SECRET, body_of, header, snapshot
from tests.support.stripe_till import till


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service in which every route has something to answer."""
    plans = with_packages(tmp_path_factory.mktemp("plans"))
    stripe: dict[str, Any] = {"stripe_webhook_secret": SECRET, "stripe_secret_key": "sk_test_1", "plans_file": plans}
    with till() as sells, Running(event_retention="24h", stripe_api_base=sells.url, **stripe) as running:
        yield running


HELD, LEASED = "held", "leased"
"""A reservation and a lease that every organisation of these tests has."""

HAS_ONE: Final = 409
"""The answer to who wants to subscribe, or to be erased: every organisation of these tests has a subscription."""

Sent = tuple[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Row:
    """How to call a route about an organisation, and what a caller who may is answered.

    `creates` says that a call may be the first that an organisation is heard of.
    """

    sent: Callable[[str], Sent]
    status: int = 200
    names_org: bool = True
    creates: bool = False


def _at(path: str, **body: Any) -> Callable[[str], Sent]:
    """A call whose path, or body, holds the organisation."""
    in_body = "{org_id}" not in path
    return lambda org: (
        path.replace("{org_id}", org),
        ({"org_id": org} | body if in_body else body) if body else None,
    )


def _asking(path: str) -> Callable[[str], Sent]:
    """A call that names the organisation in its query."""
    return lambda org: (f"{path}?org_id={org}", None)


def _plain(path: str) -> Callable[[str], Sent]:
    return lambda _: (path, None)


ROWS: Final[dict[tuple[str, str], Row]] = {
    ("POST", "/usage/track"): Row(_at("/usage/track", feature="scans"), creates=True),
    ("POST", "/api/usage/track"): Row(_at("/api/usage/track", feature="scans"), creates=True),
    ("POST", "/v1/events"): Row(_at("/v1/events", feature="scans"), names_org=False),
    ("POST", "/usage/track/batch"): Row(_at("/usage/track/batch", feature="scans"), names_org=False),
    ("POST", "/v1/check"): Row(_at("/v1/check", feature="scans"), creates=True),
    ("GET", "/v1/orgs/{org_id}/entitlements"): Row(_at("/v1/orgs/{org_id}/entitlements")),
    ("POST", "/v1/reservations"): Row(
        _at("/v1/reservations", id="one", feature="scans", quantity=1, ttl_s=60), status=201, creates=True
    ),
    ("GET", "/v1/reservations/{reservation_id}"): Row(_asking(f"/v1/reservations/{HELD}")),
    ("POST", "/v1/reservations/{reservation_id}/commit"): Row(_at(f"/v1/reservations/{HELD}/commit", quantity=1)),
    ("POST", "/v1/reservations/{reservation_id}/extend"): Row(_at(f"/v1/reservations/{HELD}/extend", ttl_s=60)),
    ("DELETE", "/v1/reservations/{reservation_id}"): Row(_asking(f"/v1/reservations/{HELD}"), status=204),
    ("POST", "/v1/leases"): Row(
        _at("/v1/leases", id="two", feature="scans", quantity=1, ttl_s=60), status=201, creates=True
    ),
    ("GET", "/v1/leases/{lease_id}"): Row(_asking(f"/v1/leases/{LEASED}")),
    ("POST", "/v1/leases/{lease_id}/settle"): Row(_at(f"/v1/leases/{LEASED}/settle", used=1)),
    ("GET", "/usage"): Row(_plain("/usage"), names_org=False),
    ("GET", "/api/usage"): Row(_plain("/api/usage"), names_org=False),
    ("GET", "/usage/{org_id}"): Row(_at("/usage/{org_id}")),
    ("GET", "/usage/history"): Row(_plain("/usage/history"), names_org=False),
    ("GET", "/usage/{org_id}/history"): Row(_at("/usage/{org_id}/history")),
    ("POST", "/v1/usage/query"): Row(_at("/v1/usage/query", window="hour")),
    ("GET", "/v1/billing/projection"): Row(_asking("/v1/billing/projection")),
    ("POST", "/v1/plans/{plan}/preview"): Row(_at("/v1/plans/professional/preview", quantities={})),
    **{
        ("POST", path): Row(_at(path, plan="professional"), status=HAS_ONE, creates=True)
        for path in ("/v1/billing/checkout", "/api/checkout/create", "/api/billing/checkout", "/subscription/create")
    },
    **{
        ("POST", path): Row(_at(path, return_url="http://localhost:3000/"))
        for path in ("/v1/billing/portal", "/api/billing/portal")
    },
    **{
        ("GET", path): Row(_asking(path))
        for path in ("/v1/billing/subscription", "/api/billing/subscription", "/subscription/status")
    },
    **{
        ("GET", path): Row(_asking(path))
        for path in ("/v1/billing/quota", "/api/billing/quota", "/v1/billing/usage", "/api/billing/usage")
    },
    **{
        ("POST", path): Row(_at(path, at_period_end=True))
        for path in ("/v1/billing/subscription/cancel", "/subscription/cancel")
    },
    **{
        ("POST", path): Row(_at(path, plan="professional"))
        for path in ("/v1/billing/subscription/change", "/v1/billing/subscription/preview")
    },
    ("POST", "/v1/billing/subscription/resume"): Row(lambda org: ("/v1/billing/subscription/resume", {"org_id": org})),
    ("GET", "/subscription/portal"): Row(_asking("/subscription/portal")),
    ("POST", "/billing/update"): Row(_at("/billing/update", plan="professional"), creates=True),
    ("POST", "/billing/create-payment-intent"): Row(
        _at("/billing/create-payment-intent", credit_amount=100), status=201, creates=True
    ),
    ("POST", "/billing/confirm-payment"): Row(_at("/billing/confirm-payment", payment_intent_id="pi_none"), status=404),
    ("POST", "/billing/refund"): Row(
        lambda _: ("/billing/refund", {"payment_intent_id": "pi_none", "reason": "test", "id": "one"}),
        status=404,
        names_org=False,
    ),
    ("PUT", "/v1/credits/auto-topup"): Row(
        _at("/v1/credits/auto-topup", enabled=False, threshold=10, package=100, max_amount_per_month=10_000)
    ),
    ("GET", "/v1/credits/auto-topup"): Row(_asking("/v1/credits/auto-topup")),
    ("GET", "/v1/events"): Row(_asking("/v1/events")),
    ("GET", "/v1/admin/events"): Row(lambda org: (f"/v1/admin/events?org_id={org}&for_s=0", None)),
    ("POST", "/v1/usage/adjustments"): Row(_at("/v1/usage/adjustments", feature="scans", delta=1, reason="test")),
    ("POST", "/v1/events/{event_id}/void"): Row(
        _at("/v1/events/evt-1/void", feature="scans", quantity=1, reason="test")
    ),
    ("POST", "/v1/usage/{org_id}/reset"): Row(_at("/v1/usage/{org_id}/reset", reason="test")),
    ("GET", "/v1/audit"): Row(_asking("/v1/audit")),
    ("GET", "/v1/orgs/{org_id}"): Row(_at("/v1/orgs/{org_id}")),
    ("PUT", "/v1/orgs/{org_id}"): Row(_at("/v1/orgs/{org_id}", plan="professional"), creates=True),
    ("PATCH", "/v1/orgs/{org_id}"): Row(_at("/v1/orgs/{org_id}", price_minor=5)),
    ("DELETE", "/v1/orgs/{org_id}"): Row(_at("/v1/orgs/{org_id}?reason=test"), status=HAS_ONE),
    ("GET", "/v1/orgs/{org_id}/export"): Row(_at("/v1/orgs/{org_id}/export")),
    ("GET", "/v1/orgs/{org_id}/erasure"): Row(_at("/v1/orgs/{org_id}/erasure"), status=404, names_org=False),
    ("GET", "/v1/orgs"): Row(_plain("/v1/orgs?limit=1"), names_org=False),
    ("POST", "/v1/keys"): Row(_at("/v1/keys", name="collector", scopes=["usage:write"]), status=201),
    ("GET", "/v1/keys"): Row(_at("/v1/keys?org_id={org_id}")),
    ("DELETE", "/v1/keys/{key_id}"): Row(_plain("/v1/keys/0000000000000000000"), status=404, names_org=False),
    ("POST", "/v1/tokens/deny"): Row(lambda _: ("/v1/tokens/deny", {"jti": "nobody"}), names_org=False),
    **{
        ("GET", path): Row(_plain(path), names_org=False)
        for path in ("/v1/credits/packages", "/billing/credit-packages")
    },
    **{("GET", path): Row(_asking(path)) for path in ("/v1/credits/balance", "/api/credits/balance")},
    ("GET", "/v1/credits/transactions"): Row(_asking("/v1/credits/transactions")),
    ("POST", "/v1/orgs/{org_id}/grants"): Row(_at("/v1/orgs/{org_id}/grants", amount=5, reason="test"), status=201),
    ("GET", "/v1/orgs/{org_id}/grants"): Row(_at("/v1/orgs/{org_id}/grants")),
    ("DELETE", "/v1/orgs/{org_id}/grants/{grant_id}"): Row(
        _at("/v1/orgs/{org_id}/grants/cg_none?reason=test"), status=404, names_org=False
    ),
    ("GET", "/v1/plans"): Row(_plain("/v1/plans"), names_org=False),
    ("GET", "/v1/plans/{plan}"): Row(_plain("/v1/plans/professional"), names_org=False),
    **{
        ("POST", path): Row(lambda _: ("/webhooks/stripe", snapshot()), names_org=False)
        for path in ("/webhooks/stripe", "/api/webhook/stripe", "/api/billing/webhook", "/billing/webhook")
    },
    ("GET", "/v1/reconciliation"): Row(_asking("/v1/reconciliation")),
    ("POST", "/v1/reconciliation/repair"): Row(_plain("/v1/reconciliation/repair"), names_org=False),
    ("POST", "/v1/reconciliation/run"): Row(_plain("/v1/reconciliation/run"), status=202, names_org=False),
    ("GET", "/v1/stripe/outbox"): Row(_asking("/v1/stripe/outbox")),
    ("POST", "/v1/stripe/outbox/{window}/replay"): Row(
        _plain(f"/v1/stripe/outbox/{'a' * 52}/replay"), status=404, names_org=False
    ),
    ("POST", "/v1/stripe/outbox/{window}/discard"): Row(
        lambda _: (f"/v1/stripe/outbox/{'a' * 52}/discard", {"reason": "test"}), status=404, names_org=False
    ),
    **{
        ("GET", path): Row(_asking(path))
        for path in (
            "/v1/billing/history",
            "/v1/billing/invoices",
            "/api/billing/invoices",
            "/v1/admin/invoices",
            "/api/billing/admin/invoices",
        )
    },
    **{
        ("GET", path): Row(_plain(path), names_org=False)
        for path in ("/v1/admin/orgs", "/v1/admin/users", "/api/billing/admin/users", "/v1/admin/usage")
    },
    ("GET", "/health"): Row(_plain("/health"), names_org=False),
    ("GET", "/health/live"): Row(_plain("/health/live"), names_org=False),
    ("GET", "/health/ready"): Row(_plain("/health/ready"), names_org=False),
    ("GET", "/metrics/usage"): Row(_plain("/metrics/usage"), names_org=False),
    ("GET", "/metrics"): Row(_plain("/metrics"), names_org=False),
    ("GET", "/openapi.json"): Row(_plain("/openapi.json"), names_org=False),
    ("GET", "/docs"): Row(_plain("/docs"), names_org=False),
    ("GET", "/docs/{file}"): Row(_plain("/docs/start.js"), names_org=False),
    ("GET", "/problems/{code}"): Row(_plain("/problems/validation"), names_org=False),
}

TABLE: Final = {(route.method, path): route for route in ROUTES for path in (route.path, *route.aliases)}


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert set(ROWS) == set(TABLE), "Add the new route to ROWS: how it is called, and what it may be called about."


def chosen(wanted: Callable[[Route, Row], bool]) -> pytest.MarkDecorator:
    """The rows of interest as parameters."""
    keys = [key for key in TABLE if key in ROWS and wanted(TABLE[key], ROWS[key])]
    return pytest.mark.parametrize("key", keys, ids=[" ".join(key) for key in keys])


def call(service: Running, key: tuple[str, str], org: str, bearer: str | None) -> httpx2.Response:
    path, body = ROWS[key].sent(org)
    if TABLE[key].tag == "webhooks":
        signed = body_of(body)
        return service.call(key[0], key[1], bearer, content=signed, headers=header(signed))
    return service.call(key[0], path, bearer, **({} if body is None else {"json": body}))


@pytest.fixture(scope="module")
def own(service: Running) -> str:
    """An organisation that exists, which no test changes."""
    return made(service)


@pytest.fixture(scope="module")
def other(service: Running) -> str:
    """Another one that exists, which no test changes."""
    return made(service)


@pytest.fixture
def changed(service: Running) -> str:
    """An organisation that exists, of this test alone."""
    return made(service)


def made(service: Running) -> str:
    """A new organisation with something to be looked at."""
    name = f"org-{secrets.token_hex(6)}"
    assert service.track(org_id=name, feature="scans", event_id="evt-1").status_code == 200
    for path, hold in (("/v1/reservations", HELD), ("/v1/leases", LEASED)):
        asked = {"id": hold, "org_id": name, "feature": "scans", "quantity": 1, "ttl_s": LEASE_S_MAX}
        assert service.call("POST", path, token(None, ADMIN), json=asked).status_code == 201
    subscribed(service, name)
    return name


def comparable(response: httpx2.Response) -> Any:
    """All of an answer but what names the request itself."""
    headers = {name: value for name, value in response.headers.items() if name not in {"x-request-id", "date"}}
    body = {name: value for name, value in response.json().items() if name != "request_id"}
    del headers["content-length"]
    return response.status_code, headers, body


@chosen(lambda route, _: route.scope == OPEN)
def test_open_routes_answer_everybody(service: Running, key: tuple[str, str]) -> None:
    for bearer in (None, "not.a.token", token("org-1", "none"), token(None, ADMIN)):
        assert call(service, key, "org-1", bearer).status_code == 200


@chosen(lambda route, _: route.scope != OPEN)
def test_without_credentials_nothing_is_answered(service: Running, key: tuple[str, str], own: str) -> None:
    unknown = f"org-{secrets.token_hex(6)}"
    with service.unchanged():
        answers = [comparable(call(service, key, org, bearer)) for org in (own, unknown) for bearer in (None, "x.y.z")]
    assert {answer[0] for answer in answers} == {401}
    assert answers[:2] == answers[2:]


@chosen(lambda route, _: route.scope not in {OPEN, SIGNED_IN})
def test_without_the_scope_nothing_is_told_of_any_organisation(
    service: Running, key: tuple[str, str], own: str, other: str
) -> None:
    lacking = [scope for scope in OWN if scope != TABLE[key].scope]
    bearer = token(own, *lacking)
    with service.unchanged():
        answers = [comparable(call(service, key, org, bearer)) for org in (own, other, "org-nobody")]
    assert answers[0][0] == 403
    assert answers[0] == answers[1] == answers[2]


@chosen(lambda route, row: row.names_org and route.scope != ADMIN)
def test_another_organisation_answers_as_an_unknown_one_and_is_not_touched(
    service: Running, key: tuple[str, str], own: str, other: str
) -> None:
    bearer = token(own)
    with service.unchanged():
        foreign = call(service, key, other, bearer)
        unknown = call(service, key, f"org-{secrets.token_hex(6)}", bearer)
        own_in_capitals = call(service, key, own.upper(), bearer)
    problem(foreign, 404, "org-not-found")
    assert comparable(foreign) == comparable(unknown) == comparable(own_in_capitals)
    assert foreign.headers["content-length"] == unknown.headers["content-length"]


@chosen(lambda route, row: row.names_org and route.scope != ADMIN)
def test_a_token_of_no_organisation_sees_none(service: Running, key: tuple[str, str], other: str) -> None:
    bearer = token(None)
    with service.unchanged():
        foreign, unknown = (call(service, key, org, bearer) for org in (other, f"org-{secrets.token_hex(6)}"))
    problem(foreign, 404, "org-not-found")
    assert comparable(foreign) == comparable(unknown)


@pytest.mark.parametrize("path", ["/usage", "/api/usage"])
def test_a_foreign_id_in_query_or_header_changes_nothing(service: Running, own: str, other: str, path: str) -> None:
    headers = {"X-Org-Id": other, "X-Forwarded-User": other, "X-Original-URL": f"/usage/{other}"}
    with service.unchanged():
        response = service.call("GET", path, token(own), params={"org_id": other}, headers=headers)
    assert response.json()["org_id"] == own


@pytest.mark.parametrize("path", ["/usage", "/api/usage"])
def test_a_token_of_no_organisation_has_to_name_one(service: Running, path: str) -> None:
    problem(service.call("GET", path, token(None, ADMIN)), 422, "validation")


def test_the_tokens_own_organisation_is_not_found_before_its_first_event(service: Running, org: str) -> None:
    for path in ("/usage", f"/usage/{org}", f"/v1/orgs/{org}"):
        problem(service.call("GET", path, token(org)), 404, "org-not-found")


# What follows changes the store. It comes last: each test above looks at every key there is.


@chosen(lambda route, _: route.scope == ADMIN)
def test_what_is_for_administrators_is_for_nobody_else(service: Running, key: tuple[str, str], changed: str) -> None:
    problem(call(service, key, changed, token(changed)), 403, "forbidden")
    assert call(service, key, changed, token(changed, ADMIN)).status_code == ROWS[key].status


@chosen(lambda route, _: route.scope not in {OPEN, ADMIN})
def test_with_the_scope_the_own_organisation_answers(service: Running, key: tuple[str, str], changed: str) -> None:
    assert call(service, key, changed, token(changed)).status_code == ROWS[key].status


@chosen(lambda _, row: row.names_org)
def test_an_administrator_reaches_every_organisation(
    service: Running, key: tuple[str, str], own: str, changed: str
) -> None:
    for bearer in (token(own, ADMIN), token(None, ADMIN), token(own, "none", roles=["admin"])):
        assert call(service, key, changed, bearer).status_code == ROWS[key].status


@chosen(lambda _, row: row.names_org)
def test_an_unknown_organisation_is_made_or_not_found(service: Running, key: tuple[str, str]) -> None:
    response = call(service, key, f"org-{secrets.token_hex(6)}", token(None, ADMIN))
    if ROWS[key].creates:
        assert response.status_code in {200, 201}
    else:
        problem(response, 404, "org-not-found")


@pytest.fixture(scope="module")
def strict() -> Iterator[Running]:
    """A service that makes no organisation by itself."""
    with Running(auto_create_orgs=False) as running:
        yield running


def test_without_auto_create_only_put_makes_an_organisation(strict: Running, org: str) -> None:
    admin = token(None, ADMIN)
    with strict.unchanged():
        tracked = strict.track(org_id=org, feature="scans")
        updated = strict.call("POST", "/billing/update", admin, json={"org_id": org, "plan": "free"})
    assert (
        comparable(tracked)[2]
        == comparable(updated)[2]
        == comparable(strict.track(token("x"), org_id=org, feature="a"))[2]
    )
    problem(tracked, 404, "org-not-found")
    assert strict.call("PUT", f"/v1/orgs/{org}", admin, json={}).status_code == 201
    assert strict.track(org_id=org, feature="scans").status_code == 200
