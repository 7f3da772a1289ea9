"""The headers of the document: which a route heeds, which its answers carry."""

from collections.abc import Mapping
from typing import Any, Final

from metering.api.etags import TAGS_PATTERN
from metering.api.keyed import KEY_PATTERN, SECRET_KEY_PATTERN
from metering.api.route import CHANGES, Route

HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "RequestId": {"description": "Names this request in logs.", "schema": {"type": "string"}},
    "ETag": {
        "description": "Names the settings shown. Usage does not change it; every change of settings does.",
        "schema": {"type": "string"},
    },
    "IdempotencyReplayed": {
        "description": "`true`: this is the answer that was given the first time. Nothing ran again.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RateLimit": {
        "description": "Events left now and seconds until all are, where the organisation has a rate limit.",
        "schema": {"type": "string"},
        "example": '"events";r=49;t=5',
    },
    "RateLimitPolicy": {
        "description": "Events and the seconds they are for, where the organisation has a rate limit.",
        "schema": {"type": "string"},
        "example": '"events";q=600;w=60',
    },
    "RetryAfter": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
"""Headers of answers, as components."""


def _idempotency_key(pattern: str, more: str) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes repeating safe: the same request under the same key runs once and gets the same answer"
        f" again. A random text of your own, bare or as an RFC 8941 string; it is yours alone.{more}",
        "schema": {"type": "string", "pattern": pattern},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    }


PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "IdempotencyKey": _idempotency_key(KEY_PATTERN, ""),
    "IdempotencyKeyOfSecret": _idempotency_key(
        SECRET_KEY_PATTERN, " The answer shows a secret: take a key that nobody can guess."
    ),
    "EventKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The id of an event that has none of its own; of several events in a request, each is the key, a"
        " slash and its place among them, from 0.",
        "schema": {"type": "string", "pattern": KEY_PATTERN},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "Change only what still has one of these ETags; `*`: only what exists.",
        "schema": {"type": "string", "pattern": TAGS_PATTERN},
        "example": '"abd04f5426c58fe48d04555e"',
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "A read answers 304 where one of these ETags is the present one; `*` on a change: only create.",
        "schema": {"type": "string", "pattern": TAGS_PATTERN},
        "example": '"abd04f5426c58fe48d04555e"',
    },
}
"""Headers of requests, as components."""

_SERVER_FAULT: Final = 500


def header_parameters(route: Route) -> list[dict[str, Any]]:
    """References to the headers that a route heeds."""
    names = ["IdempotencyKeyOfSecret" if route.secret else "IdempotencyKey"] if route.keyed else []
    if route.has_ids and not route.keyed:
        names = ["EventKey"]
    if route.etag:
        names += ["IfMatch", "IfNoneMatch"] if route.method in CHANGES else ["IfNoneMatch"]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def answer_headers(route: Route) -> dict[str, Any]:
    """The headers of a route's answers that are no problems, by name."""
    named = {"X-Request-Id": "RequestId"}
    if route.keyed:
        named["Idempotency-Replayed"] = "IdempotencyReplayed"
    if route.etag:
        named["ETag"] = "ETag"
    if route.rated:
        named |= {"RateLimit": "RateLimit", "RateLimit-Policy": "RateLimitPolicy"}
    return {name: {"$ref": f"#/components/headers/{component}"} for name, component in named.items()}


def problem_headers(route: Route, status: int, *, waits: bool) -> dict[str, Any]:
    """The headers of a route's problems; those of the server's own faults are never repeated from what was kept.

    `waits` says that some of them pass by themselves.
    """
    headers = answer_headers(route)
    headers.pop("ETag", None)
    if status >= _SERVER_FAULT:
        headers.pop("Idempotency-Replayed", None)
    if waits:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return headers
