"""HTTP/1.1 at its edge: uvicorn's httptools protocol with the bounds it lacks.

A head (request line and headers) has a size and a deadline while it arrives, not only once it is complete; trailers of
a chunked body are no headers (RFC 9110 6.5.1); an offer to upgrade to h2c is passed over (RFC 9110 7.8), where uvicorn
would forget the body; a client that half-closes still gets its answer; every refusal is a problem document.
"""

import asyncio
import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from metering.api.answers import problem_body, problem_headers
from metering.clock import SystemClock
from metering.errors import HeadersTooLarge, MalformedRequest, Problem, RequestTimeout
from metering.ulid import Ulids

HEAD_BYTES_MAX: Final = 64 * 1024
"""Bytes of a head that is not complete: four times what is accepted, so that the app's own, kinder refusal of a
complete one is what clients meet; nobody needs more memory than this before a request is known."""

HEAD_DEADLINE_S: Final = 10.0
"""From the connection, or a head's first byte, to its end. A head is one packet; ten seconds is the slowest link."""

_H2C: Final = re.compile(rb"(?im)^upgrade:[ \t]*h2c[ \t]*\r\n")
_ULIDS: Final = Ulids(SystemClock())


class WireProtocol(HttpToolsProtocol):
    """One connection. `http=WireProtocol` for uvicorn, or `--http metering.wire:WireProtocol`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_open = True
        self._completed = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._earlier: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head is due from now on."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_DEADLINE_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more: not the answer to the latest request, and not those to pipelined ones before it."""
        self._stop_timer()
        for cycle in (*self._earlier, *(cycle for cycle, _ in self.pipeline)):
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that has sent all it wants may still read: keep the way back open for the answers due."""
        if self.cycle is None or self.cycle.response_complete:
            return None
        self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Take in bytes; while they belong to a head, count them."""
        if self._head_open and b"h2c" in data:
            data = _without_h2c(data)
        self._completed = False
        super().data_received(data)
        # Bytes that ended a request were mostly that request's own; one read is bounded.
        if self._head_open and not self._completed and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HeadersTooLarge(f"over {HEAD_BYTES_MAX} bytes and not complete"))
            elif self._head_timer is None and self._head_bytes:
                self._head_timer = self.loop.call_later(HEAD_DEADLINE_S, self._too_slow)

    def on_headers_complete(self) -> None:
        """The head is complete; what the parser calls headers from here on are trailers."""
        if self._head_timer is not None:
            self._stop_timer()
        self._head_open, self._head_bytes = False, 0
        earlier = self.cycle
        super().on_headers_complete()
        self.headers = []
        if earlier is not None and not earlier.response_complete:
            self._earlier = [cycle for cycle in (*self._earlier, earlier) if not cycle.response_complete]

    def on_message_complete(self) -> None:
        """The request is complete; what comes next is a head."""
        super().on_message_complete()
        self._head_open = self._completed = True

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is refused as everything else is."""
        self._refuse(MalformedRequest(msg))

    def _too_slow(self) -> None:
        """The deadline of a head passed."""
        self._head_timer = None
        if self._head_open and (self.cycle is None or self.cycle.response_complete):
            self._refuse(RequestTimeout(f"the headers were not complete after {HEAD_DEADLINE_S:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answer without the app, and close."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        request_id = _ULIDS.mint()
        body = problem_body(problem, request_id)
        headers = [*problem_headers(problem, body, request_id), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _without_h2c(data: bytes) -> bytes:
    """The bytes with an offer of h2c taken out of the head they begin with."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _H2C.sub(b"", head + b"\r\n").removesuffix(b"\r\n") + end + rest
