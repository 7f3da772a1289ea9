"""The OpenAPI 3.1 document, made from the route table and the models that check the traffic."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from metering.api.document_headers import HEADERS, PARAMETERS, answer_headers, header_parameters, problem_headers
from metering.api.models.credits import GRANT_ID_PATTERN
from metering.api.models.fields import HOLD_ID_PATTERN
from metering.api.models.problems import ProblemView
from metering.api.models.stripe import WINDOW_PATTERN
from metering.api.route import CHANGES, NOT_MODIFIED, OPEN, Route
from metering.erasure_errors import OrgErased
from metering.errors import (
    Forbidden,
    HeadersTooLarge,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    IdempotencyNotKept,
    InternalError,
    Invalid,
    KeysUnavailable,
    LedgerFull,
    MalformedJson,
    MethodNotAllowed,
    OrgNotFound,
    Overloaded,
    PreconditionFailed,
    Problem,
    RequestTimeout,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
    leaves,
)
from metering.names import FEATURE_PATTERN, ORG_ID_PATTERN, RESERVED, TEXT_CHARS_MAX, TEXT_PATTERN
from metering.store.keys import KEY_ID_PATTERN

_REF: Final = "#/components/schemas/{model}"
_PARAMETER: Final = re.compile(r"{(\w+)}")
_PROBLEM_TYPE: Final = "application/problem+json"

_WITH_BODY: Final = (MalformedJson, RequestTimeout, TooLarge, UnsupportedMediaType, Invalid)
_WITH_KEY: Final = (
    IdempotencyInProgress, IdempotencyKeyReused, IdempotencyNotKept,
    Invalid, StorageUnavailable, Overloaded, LedgerFull,
)  # fmt: skip
_UNCHECKED: Final = (StorageUnavailable, Overloaded, KeysUnavailable)
"""Why credentials may not be checked now: API keys are in the store, signing keys behind a URL."""
_SAID: Final = {
    200: "Done.",
    201: "Created.",
    202: "Accepted, and done later.",
    204: "Done; there is nothing to say.",
    207: "Some were not done; `results` says which and why.",
    503: "Not well.",
}
_ALWAYS: Final = (MethodNotAllowed, HeadersTooLarge, InternalError)

_IN_PATH: Final = TEXT_PATTERN.replace("]+$", "/]+$")
"""An id that can stand in a path: a slash would part it."""

_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "org_id": {"type": "string", "pattern": ORG_ID_PATTERN, "not": {"enum": sorted(RESERVED)}},
    "plan": {"type": "string", "pattern": FEATURE_PATTERN},
    "reservation_id": {"type": "string", "pattern": HOLD_ID_PATTERN},
    "grant_id": {"type": "string", "pattern": GRANT_ID_PATTERN},
    "lease_id": {"type": "string", "pattern": HOLD_ID_PATTERN},
    "file": {"type": "string", "enum": ["start.js", "swagger.css", "swagger.js"]},
    "event_id": {"type": "string", "maxLength": TEXT_CHARS_MAX, "pattern": _IN_PATH, "not": {"enum": [".", ".."]}},
    "code": {"type": "string", "enum": sorted(problem.code for problem in leaves())},
    "key_id": {"type": "string", "pattern": KEY_ID_PATTERN},
    "window": {"type": "string", "pattern": WINDOW_PATTERN},
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document for `routes`."""
    table = tuple(routes)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in table:
        for path in (route.path, *route.aliases):
            paths[path][route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Usage metering and billing",
            "version": version,
            "description": "Counts usage exactly, holds it against plans, and says where every counter stands.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in table)],
        "paths": dict(paths),
        "components": {
            "schemas": _schemas(table),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT or API key"}},
            "headers": HEADERS,
            "parameters": PARAMETERS,
        },
    }


def _operation(route: Route, path: str) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "tags": [route.tag],
        "security": [] if route.scope == OPEN else [{"token": []}],
        "responses": _responses(route),
    }
    about = [route.about, f"Scope: `{route.scope}`." if ":" in route.scope or route.scope == "admin" else ""]
    if any(about):
        operation["description"] = " ".join(part for part in about if part)
    if path != route.path or route.successor:
        operation["deprecated"] = True
    if parameters := _parameters(route, path):
        operation["parameters"] = parameters
    if route.has_body:
        operation["requestBody"] = {"required": not route.optional, "content": _bodies(route)}
    return operation


def _bodies(route: Route) -> dict[str, Any]:
    """What a route takes, by media type."""
    bodies: dict[str, Any] = {}
    if route.request is not None:
        bodies["application/json"] = {"schema": _ref(route.request)}
        if route.example is not None:
            bodies["application/json"]["example"] = route.example
    for media in route.takes:
        examples = {name: {"value": value} for name, value in media.examples.items()}
        bodies[media.kind] = {"schema": _ref(media.model), "examples": examples}
    return bodies


def _parameters(route: Route, path: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]} for name in _PARAMETER.findall(path)
    ]
    if route.query is not None:
        schema = route.query.model_json_schema()
        for name, field in schema["properties"].items():
            about = field.pop("description", "")
            needed = {"required": True} if name in schema.get("required", ()) else {}
            listed.append({"name": name, "in": "query", "description": about, **needed, "schema": _text(_bare(field))})
    return listed + header_parameters(route)


def _text(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query's field: what is left out is no null, which a query has no way to write."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in route.answers.items():
        headers = answer_headers(route)
        responses[str(status)] = {"description": _said(status), "headers": headers, "content": _content(answer)}
        if status == 200:  # noqa: PLR2004 - what was asked for, in another form
            responses["200"]["content"] |= {kind: {"schema": {"type": "string"}} for kind in route.media}
        shown = route.shows_at.get(status, route.shows)
        if answer and shown is not None and status < 300:  # noqa: PLR2004 - an answer, not a refusal
            responses[str(status)]["content"]["application/json"]["example"] = shown
    if route.etag and route.method == "GET":
        responses[str(NOT_MODIFIED)] = {"description": "Not changed.", "headers": answer_headers(route), "content": {}}
    by_status: dict[int, list[type[Problem]]] = defaultdict(list)
    for problem in problems_of(route):
        by_status[problem.status].append(problem)
    for status, problems in sorted(by_status.items()):
        waits = any(problem.retry_after_s is not None for problem in problems)
        headers = problem_headers(route, status, waits=waits)
        entry = responses.setdefault(str(status), {"description": "", "headers": headers, "content": {}})
        entry["description"] = " ".join([entry["description"], *(f"`{p.code}`: {p.title}." for p in problems)]).strip()
        entry["content"][_PROBLEM_TYPE] = {
            "schema": _ref(ProblemView),
            "examples": {p.code: {"value": p().members("01HZX3J5T6N7P8Q9R0S1T2V3W4")} for p in problems},
        }
    return responses


def problems_of(route: Route) -> tuple[type[Problem], ...]:
    """Every problem a route may answer with: its own, and those of what it needs."""
    needs: tuple[type[Problem], ...] = _ALWAYS
    if route.scope != OPEN:
        needs = (Unauthenticated, Forbidden, *_UNCHECKED, *needs)
    if route.has_body:
        needs = (*_WITH_BODY, *needs)
    if route.etag:
        needs = (*((PreconditionFailed,) if route.method in CHANGES else ()), Invalid, *needs)
    if route.keyed:
        needs = (*_WITH_KEY, *needs)
    if OrgNotFound in route.problems:
        needs = (OrgErased, *needs)
    return tuple(dict.fromkeys((*route.problems, *needs)))


def _said(status: int) -> str:
    return _SAID[status]


def _content(answer: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {answer: {}} if answer else {}
    return {"application/json": {"schema": _ref(answer)}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    """Every model the routes name, requests as they may be sent, answers as they are sent."""
    models: dict[type[BaseModel], str] = {ProblemView: "serialization"}
    for route in routes:
        if route.request is not None:
            models[route.request] = "validation"
        models |= {media.model: "validation" for media in route.takes}
        models |= {answer: "serialization" for answer in route.answers.values() if not isinstance(answer, str)}
    _, schema = models_json_schema([(model, mode) for model, mode in models.items()], ref_template=_REF)  # type: ignore[misc]
    return {name: _bare(entry) for name, entry in sorted(schema["$defs"].items())}


def _bare(schema: Any) -> Any:
    """Without pydantic's titles, which repeat the names, and the defaults that only mean "left out".

    Keys that have to fit a pattern are said to: pydantic describes those that do and forgets to forbid the others.
    """
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = schema.get("properties", {})
    bare = {key: _bare(value) for key, value in schema.items() if not _noise(key, value)}
    if named:
        bare["properties"] = {name: _bare(field) for name, field in named.items()}
    if "patternProperties" in schema:
        bare["additionalProperties"] = False
    return bare


def _noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value in ("", None, {}, []))
