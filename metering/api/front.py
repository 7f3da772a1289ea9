"""The front door: track goes straight to its handler, everything else through the router.

Whatever happens behind it, a request leaves with one answer, an id, careful headers, a duration and a line in the log.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from metering import log as log_setup
from metering.api.access import GONE, METHODS, OTHER, AccessLog, Observe
from metering.api.answers import Send, careful, completed, refuse, request_id_of, successor
from metering.api.bodies import ClientGone, Headers, Receive, check_headers
from metering.api.track import TRACK, TRACK_PATHS
from metering.clock import Clock
from metering.errors import InternalError, Problem
from metering.ulid import Ulids

App = Callable[[Any, Receive, Send], Awaitable[None]]

log = structlog.get_logger(__name__)


class Front:
    """The ASGI application of the service. `track` answers its own errors; `router` raises them.

    `refusals` counts problems by code; whoever answers one leaves its code in the scope.
    """

    def __init__(
        self,
        track: App,
        router: App,
        ulids: Ulids,
        observe: Observe,
        clock: Clock,
        refusals: Counter[str] | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self._track = track
        self._router = router
        self._ulids = ulids
        self._observe = observe
        self._refusals = Counter[str]() if refusals is None else refusals
        self._access = access or AccessLog()
        self._monotonic = clock.monotonic

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["path"] in TRACK_PATHS and scope["method"] == "POST":
            older = scope["path"] != TRACK
            await self._track(scope, receive, completed(send, successor(TRACK)) if older else send)
        else:
            await self._serve(scope, receive, send)
        if "refused" in scope:
            self._refusals[scope["refused"]] += 1

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        began = self._monotonic()
        headers: Headers = dict(scope["headers"])
        request_id = request_id_of(headers, self._ulids)
        scope["unread"], scope["template"] = True, OTHER
        watched = _Watched(send, scope, request_id, self._monotonic)
        token = log_setup.request_id.set(request_id)
        try:
            await self._guarded(scope, headers, receive, watched)
        finally:
            log_setup.request_id.reset(token)
            seconds = (watched.begun_s if "streams" in scope else self._monotonic()) - began
            method = scope["method"] if scope["method"] in METHODS else OTHER
            self._observe(method, scope["template"], watched.status, seconds)
            self._access.tell(scope, method, scope["template"], watched.status, seconds, request_id)

    async def _guarded(self, scope: Any, headers: Headers, receive: Receive, send: "_Watched") -> None:
        """Run the router; every exception becomes an answer, unless one is on its way already."""
        try:
            check_headers(scope["headers"], headers)
            await self._router(scope, receive, send)
        except ClientGone:
            return
        except Problem as problem:
            scope["refused"] = problem.code
            await refuse(problem, headers, send.request_id, receive, send, unread=scope["unread"])
        except Exception:
            log.exception("unexpected error", route=scope["template"])
            scope["refused"] = InternalError.code
            if send.status != GONE:
                raise  # half an answer is out: only closing the connection tells the client
            await refuse(InternalError(), headers, send.request_id, receive, send, unread=scope["unread"])


class _Watched:
    """`send` that notes the status and when the answer began, and completes the headers, also by what the endpoint
    left in the scope.
    """

    def __init__(self, send: Send, scope: Any, request_id: str, monotonic: Callable[[], float]) -> None:
        self._send = send
        self._monotonic = monotonic
        self.begun_s = monotonic()
        self._scope = scope
        self.request_id = request_id
        self.status = GONE

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.begun_s = message["status"], self._monotonic()
            listed = [*message["headers"], *self._scope.get("more_headers", ())]
            message["headers"] = careful(listed, self.request_id)
        await self._send(message)
