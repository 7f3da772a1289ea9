"""Older ways to ask for a route: other paths, methods and shapes that clients were written for, over one handler.

Where only the path is another one, the route itself lists it (`Route.aliases`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from pydantic import BaseModel

from metering.api.route import Call, Handler, Reply, Route
from metering.errors import Invalid, Problem

ECHOING: Final = "/api/billing/"
"""Clients of these paths read what went wrong from `error`: their problems have the detail there as well."""


@dataclass(frozen=True, slots=True)
class Alias:
    """`method` and `path` ask for the route `of` ("POST /v1/billing/portal"); what is not said here is as there.

    `asks` makes the call that the route's handler expects of one whose body and query are this alias' own `request`
    and `query`. `tells` makes this alias' answer of the handler's; `answers` and `shows` describe it then.
    """

    method: str
    path: str
    of: str
    asks: Callable[[Call], Call] | None = None
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    example: Mapping[str, Any] | None = None
    tells: Callable[[Any], Any] | None = None
    answers: Mapping[int, type[BaseModel] | str] = field(default_factory=dict)
    shows: Mapping[str, Any] | None = None


def older(aliases: Iterable[Alias], routes: Iterable[Route]) -> tuple[Route, ...]:
    """The aliases as routes. Raises KeyError for one of a route that there is not."""
    by_name = {f"{route.method} {route.path}": route for route in routes}
    return tuple(_older(alias, by_name[alias.of]) for alias in aliases)


def _older(alias: Alias, route: Route) -> Route:
    made = replace(route, method=alias.method, path=alias.path, successor=route.path, aliases=())
    if route.handler is not None:
        made = replace(made, handler=_adapted(route.handler, alias))
    if alias.asks is not None:
        made = replace(made, request=alias.request, query=alias.query, example=alias.example)
        made = replace(made, problems=tuple(dict.fromkeys((Invalid, *route.problems))))
    if alias.tells is not None:
        made = replace(made, answers=alias.answers, shows=alias.shows)
    return made


def _adapted(handler: Handler, alias: Alias) -> Handler:
    async def handled(call: Call) -> Reply:
        reply = await handler(call if alias.asks is None else alias.asks(call))
        if alias.tells is None:
            return reply
        return replace(reply, body=orjson.dumps(alias.tells(orjson.loads(reply.body))))

    return handled


@contextmanager
def echoed(path: str) -> Iterator[None]:
    """Where `path` is one of those, the detail of a problem is also its member `error`."""
    try:
        yield
    except Problem as problem:
        if path.startswith(ECHOING):
            problem.extra.setdefault("error", problem.detail)
        raise


def echoing(route: Route) -> Route:
    """The route whose handler's own refusals have that member, also where they are kept for a repeat."""
    handler = route.handler
    if handler is None:
        return route

    async def handled(call: Call) -> Reply:
        with echoed(ECHOING):
            return await handler(call)

    return replace(route, handler=handled)
