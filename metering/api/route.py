"""One route: everything the service and its document need to know of it, and what its handler sees of a request."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel

from metering.api.answers import JSON
from metering.api.bodies import Headers, Receive
from metering.api.etags import NO_CONDITIONS, Conditions
from metering.api.services import Services
from metering.auth import Caller
from metering.errors import Problem

OPEN: Final = ""
"""The scope of routes that need no credentials."""

SIGNED_IN: Final = "*"
"""The scope of routes that need valid credentials and nothing more."""

NOT_MODIFIED: Final = 304

CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Methods that change something, unless their route says that it only reads."""

_M = TypeVar("_M")


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose route, credentials, scope, query and body have been checked."""

    services: Services
    headers: Headers
    params: Mapping[str, str]
    identity: Caller | None = None
    body: Any = None
    query: BaseModel | None = None
    idempotency_key: str | None = None
    """Names this request: the same for every repeat under its Idempotency-Key, and for no other request of anybody
    (a digest of caller, key and request). None without the header. A worker that dies between a handler's effect and
    the keeping of its answer makes a repeat run the handler again: an effect that must not happen twice takes its
    own id from this."""
    conditions: Conditions = NO_CONDITIONS
    """If-Match and If-None-Match, on routes with an ETag."""

    @property
    def caller(self) -> Caller:
        """Who calls. Only for routes with a scope."""
        if self.identity is None:
            raise TypeError("an open route has no caller")
        return self.identity

    def name(self) -> str:
        """A name of this request for others to know repeats by: its key's, or else a new one at every call."""
        return self.idempotency_key or self.services.ulids.mint()

    def sent(self, model: type[_M]) -> _M:
        """The body, which the route declares to be a `model`, or its reader to make one."""
        return _expect(self.body, model)

    def asked(self, model: type[_M]) -> _M:
        """The query, which the route declares to be a `model`."""
        return _expect(self.query, model)


def _expect(value: object, model: type[_M]) -> _M:
    if not isinstance(value, model):
        raise TypeError(f"the route does not declare a {model.__name__}")
    return value


def _nothing() -> None:
    """Nobody waits for the end of an answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `headers` are further ones; what every answer carries is added on the way out.

    One that streams has `parts` in place of a body, which end when they end or nobody reads them any more; `done` is
    called then, whatever happened.
    """

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: AsyncIterator[bytes] | None = None
    done: Callable[[], None] = _nothing


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    return Reply(orjson.dumps(value), status, headers=headers or {})


def tagged(reply: Reply, etag: str) -> Reply:
    """The answer to a change, with the ETag of what it made."""
    return replace(reply, headers={**reply.headers, "ETag": etag})


def tagged_read(call: Call, reply: Reply, etag: str) -> Reply:
    """The answer to a read, with its ETag; 304 without a body where the caller has just that."""
    if call.conditions.unchanged(etag):
        return Reply(b"", NOT_MODIFIED, headers={"ETag": etag})
    return tagged(reply, etag)


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]

Reader: TypeAlias = Callable[[Sequence[tuple[bytes, bytes]], Headers, Receive], Awaitable[Any]]
"""Takes the headers as they came and as a mapping, and the rest of the request; gives what handlers get as the body.

Raises Problems, UnsupportedMediaType among them.
"""


@dataclass(frozen=True, slots=True)
class Media:
    """One media type that a route's own reader takes: what a body of it looks like, with examples by name."""

    kind: str
    model: type[BaseModel]
    examples: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `handler` None: the hot path answers it.

    `answers` holds the model (or media type; "" is no body) of each status that is no problem; `example` is a body as
    a caller would send it, `shows` one as they would get it, `shows_at` one of a certain status. Aliases are older
    paths of the same route. A body is JSON checked by `request`, or what `reader` makes of one of the `takes`.

    `successor` is the path of the newer route that this one is an older way to ask for: see `metering.api.alias`.
    `optional` says that the body may be left out: then it is one of defaults.

    `reads` says that a POST changes nothing, so that an Idempotency-Key has no business with it; `has_ids` that what it
    brings has ids of its own, for which the key can stand in; `secret` that an answer shows a secret that is never
    shown again; `etag` that answers carry an ETag, so that If-Match and If-None-Match are heeded; `rated` that
    what it decides may be under a rate limit, which its answers tell. `media` are further media types of a 200.
    """

    method: str
    path: str
    summary: str
    scope: str
    tag: str
    handler: Handler | None
    answers: Mapping[int, type[BaseModel] | str]
    request: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    problems: tuple[type[Problem], ...] = ()
    example: Mapping[str, Any] | None = None
    shows: Mapping[str, Any] | None = None
    shows_at: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    successor: str = ""
    about: str = ""
    optional: bool = False
    reads: bool = False
    has_ids: bool = False
    secret: bool = False
    etag: bool = False
    rated: bool = False
    media: tuple[str, ...] = ()
    reader: Reader | None = None
    takes: tuple[Media, ...] = ()

    @property
    def keyed(self) -> bool:
        """Whether the answer under an Idempotency-Key is kept: of changes by a known caller, but for events."""
        return self.method in CHANGES and not (self.reads or self.has_ids) and self.scope != OPEN

    @property
    def has_body(self) -> bool:
        """Whether requests have a body."""
        return self.request is not None or self.reader is not None
