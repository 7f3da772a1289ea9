"""The hot path: one usage event in, its balance out.

A raw ASGI application; every microsecond here is paid by every event, so it reads what it needs, calls the store
once, and writes bytes.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol

import orjson
import structlog

from metering.api.access import GONE, AccessLog, Observe
from metering.api.answers import JSON, NOSNIFF, Send, refuse, request_id_of
from metering.api.bodies import (
    ClientGone,
    Headers,
    Receive,
    check_headers,
    check_media_type,
    parse_json,
    read_body,
)
from metering.api.events import event_of, quick_event
from metering.api.guard import require_scope, tell_foreign
from metering.api.keyed import KEY_HEADER, key_in
from metering.api.outcomes import ALLOWED, raw_rate_headers, refusal, track_answer, with_window
from metering.auth import USAGE_WRITE, Authenticator, Caller
from metering.clock import Clock
from metering.errors import InternalError, OrgNotFound, Overloaded, Problem
from metering.ulid import Ulids
from metering.usage import Outcome, UsageEvent
from plans.catalogue import Catalogue

TRACK: Final = "/usage/track"
TRACK_PATHS: Final = frozenset({TRACK, "/api/usage/track"})

_OK: Final = 200

Answered = tuple[bytes, Sequence[tuple[bytes, bytes]]]

log = structlog.get_logger(__name__)


class Counts(Protocol):
    """What the hot path needs of the store."""

    def track(self, event: UsageEvent) -> Awaitable[Outcome]:
        """Count one event. Raises OrgNotFound, TimestampOutOfRange and the 503 problems."""
        ...

    def room(self) -> bool:
        """Whether another event may wait. After a no the event is not brought: it counts as shed."""
        ...


class Track:
    """POST /usage/track. Refusals go through the same door as everywhere else; only the yes is short."""

    def __init__(
        self,
        auth: Authenticator,
        counters: Counts,
        catalogue: Catalogue,
        ulids: Ulids,
        observe: Observe,
        clock: Clock,
        *,
        access: AccessLog | None = None,
        keep_details: bool = False,
    ) -> None:
        self._auth = auth
        self._counters = counters
        self._catalogue = catalogue
        self._ulids = ulids
        self._observe = observe
        self._monotonic = clock.monotonic
        self._access = access or AccessLog()
        self._keep, self._declared = keep_details, catalogue.dimensions

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request. `keep_details` gives events what a log of raw events keeps of them."""
        began = self._monotonic()
        raw = scope["headers"]
        headers: Headers = dict(raw)
        request_id = request_id_of(headers, self._ulids)
        scope["unread"] = True
        try:
            check_headers(raw, headers)
            body, more = await self._answer(scope, headers, receive, began, request_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            status = await self._refuse(error, scope, headers, request_id, receive, send)
        else:
            status = _OK
            answered = [
                (b"content-type", JSON),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", request_id.encode("ascii")),
                NOSNIFF,
                *more,
            ]
            await send({"type": "http.response.start", "status": _OK, "headers": answered})
            await send({"type": "http.response.body", "body": body})
        seconds = self._monotonic() - began
        self._observe("POST", TRACK, status, seconds)
        if status == _OK:
            self._access.counted(scope, TRACK, seconds, request_id)
        else:
            self._access.tell(scope, "POST", TRACK, status, seconds, request_id)

    async def _answer(self, scope: Any, headers: Headers, receive: Receive, now_s: float, request_id: str) -> Answered:
        """The answer's bytes and further headers. Raises Problem."""
        if not self._counters.room():
            raise Overloaded  # before any work for it: what is overloaded must refuse cheaply
        credentials = headers.get(b"authorization")
        caller = self._auth.remembered(credentials, now_s) or await self._auth.identify(credentials)
        if not caller.may(USAGE_WRITE):
            require_scope(caller, USAGE_WRITE)
        if headers.get(b"content-type") != JSON or b"content-encoding" in headers:
            check_media_type(headers)
        body = await read_body(headers, receive)
        scope["unread"] = False
        event = self._event(body, caller, request_id)
        scope["org"] = event.org_id
        if KEY_HEADER in headers:
            key = key_in(scope["headers"])  # one that is none is told, needed or not
            if event.hold_id is None:  # what settles a hold is named by it
                event.event_id = event.event_id or key
        outcome = await self._counters.track(event)
        scope["outcome"] = outcome.result
        return self._rendered(event, outcome)

    def _event(self, body: bytes, caller: Caller, request_id: str) -> UsageEvent:
        """The event in the body, of an organisation the caller sees. Raises MalformedJson, Invalid, OrgNotFound."""
        value = parse_json(body)
        keep, declared = self._keep, self._declared
        event = quick_event(value, len(body), caller.org_id, keep=keep, declared=declared)
        if event is None:
            event = event_of(value, caller, self._catalogue.default_feature, keep=keep, declared=declared)
        if not caller.sees(event.org_id):
            tell_foreign(caller, event.org_id, request_id=request_id)
            raise OrgNotFound
        return event

    def _rendered(self, event: UsageEvent, outcome: Outcome) -> Answered:
        """The answer and the headers that go with it. Raises the problem of a refusal."""
        if outcome.rule is None or outcome.result not in ALLOWED:
            raise refusal(event, outcome, self._catalogue)
        answer = track_answer(event, outcome, event.event_id or event.hold_id or "evt_" + self._ulids.mint())
        told = outcome.standing
        return orjson.dumps(answer), () if told is None else raw_rate_headers(told)

    async def _refuse(
        self, error: Exception, scope: Any, headers: Headers, request_id: str, receive: Receive, send: Send
    ) -> int:
        """Answer for an error; the status sent."""
        if isinstance(error, ClientGone):
            return GONE
        if isinstance(error, Problem):
            error = with_window(error)
        else:
            log.error("unexpected error", exc_info=error, request_id=request_id)
            error = InternalError()
        scope["refused"] = error.code
        await refuse(error, headers, request_id, receive, send, unread=scope["unread"])
        return error.status
