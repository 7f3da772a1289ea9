"""From the table to answers: one ASGI application per path, and the router over them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute, Router
from starlette.routing import Route as StarletteRoute

from metering.api.alias import ECHOING, echoed, echoing
from metering.api.answers import Send, bounded, successor
from metering.api.bodies import (
    Faults,
    Headers,
    Receive,
    check_media_type,
    fault,
    faults_of,
    invalid,
    parse_json,
    read_body,
)
from metering.api.etags import NO_CONDITIONS, conditions_of
from metering.api.guard import require_scope
from metering.api.keyed import KEY_HEADER, Heard, key_of, run, try_of
from metering.api.route import NOT_MODIFIED, OPEN, SIGNED_IN, Call, Reply, Route
from metering.api.services import Services
from metering.api.streaming import streamed
from metering.auth import Caller
from metering.errors import MethodNotAllowed, NotFound

_QUERY_FIELDS_MAX: Final = 32

_BODILESS: Final = frozenset({204, NOT_MODIFIED})
"""Answers without a body say nothing of its type and length (RFC 9110, sections 8.6 and 15.4.5)."""


class Endpoint:
    """All methods of one path. Raises Problems; the front answers them."""

    def __init__(self, path: str, routes: Iterable[Route], services: Services, track: Any) -> None:
        self._routes = {route.method: echoing(route) if path.startswith(ECHOING) else route for route in routes}
        if "GET" in self._routes:
            self._routes["HEAD"] = self._routes["GET"]
        self._path = path
        first = next(iter(self._routes.values()))
        self._template = first.path
        self._newer = first.successor or (first.path if path != first.path else "")
        self._services = services
        self._track = track

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with echoed(self._path):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        if "\n" in scope["path"] and not scope["path_params"]:
            raise NotFound  # the router's patterns end at a line's end, not at the path's
        scope["template"] = self._template
        if self._newer:
            scope["more_headers"] = successor(self._newer)
        route = self._routes.get(scope["method"])
        if route is None:
            allowed = ", ".join(sorted(self._routes))
            raise MethodNotAllowed(f"{self._path} takes {allowed}", headers={"Allow": allowed})
        if route.handler is None:
            await self._track(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        scope["org"] = scope["path_params"].get("org_id")
        caller = await self._caller(route, headers)  # first who calls, then what is asked
        if caller is not None and scope["org"] is None:
            scope["org"] = caller.org_id
        if KEY_HEADER in headers and route.keyed:
            key, heard = key_of(route, scope["headers"]), Heard(receive)
            call = await self._call(route, scope, headers, caller, heard)
            reply = await run(route.handler, call, try_of(call, key, scope, heard))
        else:
            call = await self._call(route, scope, headers, caller, receive)
            reply = await route.handler(call)
        if reply.parts is None:
            await self._send(reply, scope, headers, send)
        else:
            scope["streams"] = True
            await streamed(reply, reply.parts, receive, send, bodiless=scope["method"] == "HEAD")

    async def _call(self, route: Route, scope: Any, headers: Headers, caller: Caller | None, receive: Receive) -> Call:
        """What is asked, checked. Raises Problems."""
        conditions = conditions_of(scope["headers"]) if route.etag else NO_CONDITIONS
        query = None if route.query is None else checked_query(scope["query_string"], route.query)
        body: Any = None
        if route.reader is not None:
            body = await route.reader(scope["headers"], headers, receive)
            scope["unread"] = False
        elif route.request is not None and route.optional and _bodiless(headers):
            body = route.request()
        elif route.request is not None:
            check_media_type(headers)
            raw = await read_body(headers, receive)
            scope["unread"] = False
            body = checked(parse_json(raw), route.request)
        named = getattr(body, "org_id", None) or getattr(query, "org_id", None)
        scope["org"] = named or scope["org"]
        return Call(self._services, headers, scope["path_params"], caller, body, query, conditions=conditions)

    async def _caller(self, route: Route, headers: Headers) -> Caller | None:
        if route.scope == OPEN:
            return None
        caller = await self._services.auth.identify(headers.get(b"authorization"))
        if route.scope != SIGNED_IN:
            require_scope(caller, route.scope)
        return caller

    async def _send(self, reply: Reply, scope: Any, headers: Headers, send: Send) -> None:
        listed = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body))]
        if reply.status in _BODILESS:
            listed = []
        listed += [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        if scope["unread"] and not bounded(headers):
            listed.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": listed})
        await send({"type": "http.response.body", "body": reply.body})


def _bodiless(headers: Headers) -> bool:
    """Whether a request has no body (RFC 9112, section 6.3), whatever type it gives to it."""
    return b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"


def checked(value: Any, model: type[BaseModel]) -> BaseModel:
    """`value` as `model`. Raises Invalid with every fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(faults_of(error, model)) from None


def checked_query(raw: bytes, model: type[BaseModel]) -> BaseModel:
    """The query as `model`, each field once. Raises Invalid."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError:
        raise invalid([fault("", "query", "the query cannot be read")]) from None
    names = [name for name, _ in pairs]
    doubled: Faults = [
        fault(f"/{name}", "repeated", "given more than once")
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if doubled:
        raise invalid(doubled)
    return checked(dict(pairs), model)


async def _no_such_path(_: Any, __: Receive, ___: Send) -> None:
    raise NotFound


def router(routes: Iterable[Route], services: Services, track: Any) -> Router:
    """The routes and their aliases as a Starlette router, in the order of the table. Raises Problems, sends answers."""
    by_path: Mapping[str, list[Route]] = defaultdict(list)
    for route in routes:
        for path in (route.path, *route.aliases):
            by_path[path].append(route)
    order = sorted(by_path, key=lambda path: "{" in path)  # stable: literals first, then as in the table
    listed: list[BaseRoute] = [StarletteRoute(path, Endpoint(path, by_path[path], services, track)) for path in order]
    return Router(listed, redirect_slashes=False, default=_no_such_path)
