"""The OpenAPI document: valid, complete, and true."""

from typing import Any

import orjson
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from starlette.routing import Route as StarletteRoute

from metering.api.document import document, problems_of
from metering.api.endpoint import router
from metering.api.models.orgs import BillingUpdate, OrgSettings
from metering.api.models.usage import TrackRequest
from metering.api.routes import ROUTES
from metering.auth import ADMIN
from metering.errors import MalformedRequest, leaves
from tests.service.running import Running, token


@pytest.fixture(scope="module")
def served(service: Running) -> dict[str, Any]:
    """The document as the service shows it."""
    response = service.call("GET", "/openapi.json")
    assert response.headers["content-type"] == "application/json"
    shown: dict[str, Any] = response.json()
    return shown


def operations(shown: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): entry for path, entries in shown["paths"].items() for method, entry in entries.items()}


def answered() -> list[str]:
    """The paths of the router, in its order. Nothing is called, so it needs no services."""
    nobody: Any = None
    return [route.path for route in router(ROUTES, nobody, nobody).routes if isinstance(route, StarletteRoute)]


def test_the_document_is_valid_openapi_3_1(served: dict[str, Any]) -> None:
    assert served["openapi"].startswith("3.1")
    validate(served)


def test_the_document_names_what_the_router_answers_and_nothing_else(served: dict[str, Any]) -> None:
    assert set(served["paths"]) == set(answered())
    table = {(route.method.lower(), path) for route in ROUTES for path in (route.path, *route.aliases)}
    assert set(operations(served)) == table


def test_headers_that_say_when_to_come_again_are_in_it(served: dict[str, Any]) -> None:
    """Wherever there can be a 429, and wherever a refusal passes by itself."""
    for operation, entry in operations(served).items():
        answers = {int(status): set(answer["headers"]) for status, answer in entry["responses"].items()}
        if not operation[1].startswith("/health"):
            assert all("Retry-After" in headers for status, headers in answers.items() if status in {429, 503}), (
                operation
            )
        if 429 in answers:
            told = [headers for status, headers in answers.items() if status in {200, 201, 403, 409, 429}]
            assert all({"RateLimit", "RateLimit-Policy"} <= headers for headers in told), operation


def test_literal_paths_come_before_patterns() -> None:
    assert answered() == sorted(answered(), key=lambda path: "{" in path)


def test_every_operation_has_a_name_of_its_own_and_a_summary(served: dict[str, Any]) -> None:
    entries = operations(served).values()
    names = [entry["operationId"] for entry in entries]
    assert len(names) == len(set(names))
    assert all(entry["summary"] and entry["tags"] for entry in entries)


def test_every_problem_a_route_may_answer_with_is_documented(served: dict[str, Any]) -> None:
    for route in ROUTES:
        responses = operations(served)[route.method.lower(), route.path]["responses"]
        for kind in problems_of(route):
            content = responses[str(kind.status)]["content"]["application/problem+json"]
            assert content["examples"][kind.code]["value"]["code"] == kind.code


def test_every_problem_there_is_can_be_met_somewhere() -> None:
    documented = {kind.code for route in ROUTES for kind in problems_of(route)}
    # Bytes that are no request belong to no route; docs/api.md names their refusal.
    assert documented == {kind.code for kind in leaves()} - {MalformedRequest.code}


def test_aliases_are_marked_as_older_names(served: dict[str, Any]) -> None:
    older = {path for (_, path), entry in operations(served).items() if entry.get("deprecated")}
    listed = {alias for route in ROUTES for alias in route.aliases}
    assert older == listed | {route.path for route in ROUTES if route.successor}


def test_an_alias_names_its_successor(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    response = service.call("GET", "/api/usage", token(org))
    assert response.headers["link"] == '</usage>; rel="successor-version"'
    assert response.headers["deprecation"].startswith("@")
    assert "deprecation" not in service.call("GET", "/usage", token(org)).headers


@pytest.mark.parametrize(
    ("method", "alias", "path", "sent", "status"),
    [
        ("POST", "/api/usage/track", "/usage/track", {"feature": "scans"}, 200),
        ("POST", "/api/usage/track", "/usage/track", {"feature": "nope"}, 404),
        ("POST", "/api/usage/track", "/usage/track", {}, 422),
        ("GET", "/api/usage/track", "/usage/track", None, 405),
        ("DELETE", "/api/usage", "/usage", None, 405),
    ],
)
def test_an_alias_names_its_successor_whatever_it_answers(
    service: Running, org: str, method: str, alias: str, path: str, sent: dict[str, Any] | None, status: int
) -> None:
    for at, link in ((alias, [f'<{path}>; rel="successor-version"']), (path, [])):
        response = service.call(method, at, token(org), **({} if sent is None else {"json": sent}))
        assert response.status_code == status
        assert response.headers.get_list("link") == link
        assert len(response.headers.get_list("deprecation")) == len(link)


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/usage"), ("POST", "/api/usage/track")])
def test_an_alias_names_its_successor_to_strangers_too(service: Running, method: str, path: str) -> None:
    response = service.call(method, path)
    assert (response.status_code, "deprecation" in response.headers) == (401, True)


def test_what_is_not_stored_and_not_built_is_said_so(served: dict[str, Any]) -> None:
    schemas = served["components"]["schemas"]
    about = {name: field["description"] for name, field in schemas["TrackRequest"]["properties"].items()}
    assert all("Kept with raw events, and in history" in about[name] for name in ("metadata", "actor", "endpoint"))


def validator(shown: dict[str, Any], schema: dict[str, Any]) -> OAS31Validator:
    return OAS31Validator({**schema, "components": shown["components"]})


def test_every_example_fits_its_schema(served: dict[str, Any]) -> None:
    seen = 0
    for entry in operations(served).values():
        contents = [entry["requestBody"]["content"]] if "requestBody" in entry else []
        contents += [response["content"] for response in entry["responses"].values()]
        for content in contents:
            for media in content.values():
                shown = [media["example"]] if "example" in media else []
                for example in [*shown, *(named["value"] for named in media.get("examples", {}).values())]:
                    validator(served, media["schema"]).validate(example)
                    seen += 1
    assert seen > 100


def test_answers_fit_their_schemas(service: Running, served: dict[str, Any], org: str) -> None:
    admin = token(org, ADMIN)
    service.track(org_id=org, feature="scans", quantity=12)
    calls: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("post", "/usage/track", "/usage/track", {"org_id": org, "feature": "scans", "event_id": "e"}),
        ("get", "/usage", "/usage", None),
        ("get", "/usage/{org_id}", f"/usage/{org}", None),
        ("post", "/billing/update", "/billing/update", {"org_id": org, "plan": "enterprise"}),
        ("put", "/v1/orgs/{org_id}", f"/v1/orgs/{org}", {"limits": {"scans": 3}}),
        ("get", "/v1/orgs/{org_id}", f"/v1/orgs/{org}", None),
        ("get", "/v1/orgs", "/v1/orgs", None),
        ("get", "/v1/plans", "/v1/plans", None),
        ("get", "/v1/plans/{plan}", "/v1/plans/enterprise", None),
        ("get", "/health", "/health", None),
        ("get", "/health/live", "/health/live", None),
        ("get", "/health/ready", "/health/ready", None),
    ]
    for method, template, path, body in calls:
        response = service.call(method.upper(), path, admin, **({} if body is None else {"json": body}))
        media = operations(served)[method, template]["responses"][str(response.status_code)]["content"]
        validator(served, media["application/json"]["schema"]).validate(response.json())


def test_an_answer_with_a_field_the_schema_does_not_have_would_be_seen(served: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Liveness"}
    assert validator(served, schema).is_valid({"status": "alive"})
    assert not validator(served, schema).is_valid({"status": "alive", "more": 1})


@pytest.mark.parametrize("model", [TrackRequest, BillingUpdate, OrgSettings])
def test_what_may_be_left_out_has_no_default_in_the_document_unless_it_is_the_truth(
    served: dict[str, Any], model: type
) -> None:
    fields = served["components"]["schemas"][model.__name__]["properties"]
    assert {name: field["default"] for name, field in fields.items() if "default" in field} == (
        {"quantity": 1, "mode": "default", "dry_run": False} if model is TrackRequest else {}
    )


def test_the_document_does_not_depend_on_the_run() -> None:
    assert orjson.dumps(document(ROUTES, "1")) == orjson.dumps(document(ROUTES, "1"))
