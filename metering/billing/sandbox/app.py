"""The sandbox as an ASGI app: what Stripe does with every request, whatever it is about.

In this order: key, version, route, rate, parameters, Idempotency-Key, lane, faults, and then the handler in one
transaction. The answer says `livemode: false` wherever it says anything of it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from metering.billing.sandbox import jobs
from metering.billing.sandbox.answers import Answer, Wire, failed
from metering.billing.sandbox.context import Context, Options, Route
from metering.billing.sandbox.control import Control
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.door import Door, Request
from metering.billing.sandbox.errors import ApiError, too_many
from metering.billing.sandbox.events import Recorder
from metering.billing.sandbox.expand import rendered
from metering.billing.sandbox.faults import Fault, Faults
from metering.billing.sandbox.idempotency import Kept, Keys
from metering.billing.sandbox.postman import Postman
from metering.billing.sandbox.table import ROUTES, Table
from metering.clock import SystemClock

_BEFORE: Final = ("timeout_before", "reset_before", "conflict", "rate_limit", "error_before", "html")
_AFTER: Final = ("timeout_after", "reset_after", "error_after", "slow_body")


class Sandbox:
    """One Stripe account. `now_s` tells its time in seconds; `stopwatch` measures rates.

    `app` is the ASGI app. `jobs.run_due` is done before every request: what was due has happened by then.
    """

    def __init__(
        self,
        db: Db,
        now_s: Callable[[], int],
        options: Options | None = None,
        *,
        routes: Iterable[Route] = ROUTES,
        stopwatch: Callable[[], float] | None = None,
    ) -> None:
        self.db, self.now_s, self.options = db, now_s, options or Options()
        self.faults = Faults()
        self._door = Door(Table(routes), self.options, stopwatch or SystemClock().monotonic)
        self._keys = Keys(db)
        self._lanes: set[str] = set()
        self.postman = Postman(db, now_s)
        self._control = Control(self)

    def context(self, now_s: int | None = None, request: Obj | None = None, **more: Any) -> Context:
        """A context for a request, or for what happens by itself at `now_s`."""
        moment = self.now_s() if now_s is None else now_s
        recorder = Recorder(self.db, moment, request)
        return Context(self.db, moment, recorder.emit, recorder.emit_thin, self.faults, self.options, **more)

    def run_due(self) -> int:
        """Do what is due by now; how many things there were."""
        return jobs.run_due(self.db, self.context, self.now_s())

    async def settle(self) -> None:
        """Do what is due by now and send what there is to tell, until nothing is left that is due."""
        self.run_due()
        while await self.postman.deliver():
            self.run_due()

    async def close(self) -> None:
        """Let go of connections and of the file."""
        await self.postman.close()
        self.db.close()

    async def app(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """The ASGI app."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        wire = Wire(scope, receive, send)
        body = await wire.body()
        if not scope["path"].startswith(("/v1/", "/v2/")):
            if scope["path"] == "/sandbox/run":
                await self.settle()
            await wire.answer(self._control.answer(scope, body), self.now_s())
            return
        request = Request.of(scope, body, self.db.new_id("req"), self.now_s())
        fault, answer = None, None
        try:
            self._door.admit(request)
            answer, fault = await self._served(request, wire)
        except ApiError as error:
            answer = failed(error, request)
        if answer is not None:
            await wire.answer(answer, self.now_s(), fault)

    async def _served(self, request: Request, wire: Wire) -> tuple[Answer | None, Fault | None]:
        """The answer, None where none is to go out, and the fault that spoils it on its way."""
        kept = self._keys.begin(request.key, request.print, request.now_s) if request.key else None
        if kept is not None:
            return Answer.replayed(kept, request), None
        try:
            lane = self._enter(request)
            try:
                return await self._done(request, wire)
            finally:
                self._lanes.discard(lane)
        finally:
            self._keys.end(request.key)

    def _enter(self, request: Request) -> str:
        """The lane of a request. Raises ApiError 429 where somebody is in it."""
        name = request.route.lane and request.route.lane(self.context(), request.params)
        if name and name in self._lanes:
            told = "This object cannot be accessed right now because another API request is currently accessing it."
            raise too_many(told, code="lock_timeout")
        self._lanes.add(name or "")
        return name or ""

    async def _done(self, request: Request, wire: Wire) -> tuple[Answer | None, Fault | None]:
        """The same inside of its key and its lane."""
        before = self.faults.take(*_BEFORE, method=request.method, path=request.path)
        if before is not None:
            return await self._spoilt(before, request, wire), None
        self.run_due()
        after = self.faults.take(*_AFTER, method=request.method, path=request.path)
        answer = self._worked(request, after)
        if after is None or after.kind in {"error_after", "slow_body"}:
            return answer, after
        await wire.lost(after)
        return None, None

    async def _spoilt(self, fault: Fault, request: Request, wire: Wire) -> Answer | None:
        """What a fault makes of a request that never reaches its handler."""
        if fault.kind in {"timeout_before", "reset_before"}:
            await wire.lost(fault)
            return None
        answer = Answer.of_fault(fault, request)
        if fault.kind == "error_before":
            self._keep(request, answer)
        return answer

    def _worked(self, request: Request, fault: Fault | None) -> Answer:
        """The handler in one transaction, together with what is kept under its key."""
        ctx = self._context_of(request)
        try:
            with self.db.transaction():
                shown = rendered(self.db, request.route.handler(ctx, request.params), request.expand)
                answer = Answer.right(shown, request)
                if fault is not None and fault.kind == "error_after":
                    answer = Answer.of_fault(fault, request)
                self._keep(request, answer)
                return answer
        except ApiError as error:
            answer = failed(error, request)
            with self.db.transaction():
                if request.route.refused is not None:
                    request.route.refused(ctx, request.params, error)
                self._keep(request, answer)
            return answer

    def _context_of(self, request: Request) -> Context:
        told = {"id": request.id, "idempotency_key": request.key or None}
        base = f"http://{request.headers.get('host', '127.0.0.1')}"
        known = {"path": request.path, "ids": request.ids, "expand": request.expand, "base": base}
        return self.context(request.now_s, told, **known)

    def _keep(self, request: Request, answer: Answer) -> None:
        """Of /v1 every answer is kept; /v2 keeps what worked and tries again what did not."""
        if request.key and (request.route.version == 1 or answer.status < 300):  # noqa: PLR2004 - the successes
            kept = Kept(answer.status, answer.body.decode(), request.id)
            self._keys.keep(request.key, request.print, kept, request.now_s)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
