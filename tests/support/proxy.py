"""A network that fails on demand: a proxy on a socket of its own between a caller and a store."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CALL: Final = b"EVALSHA"
"""Script calls meet a fault; greetings and the loading of scripts pass."""

READ: Final = b"HGETALL"
"""What an organisation is read with."""


class Proxy:
    """`async with Proxy(server.address) as proxy:` gives `.url`; every connection to it is passed on to the server."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="proxy-"))
        self._path = str(self._folder / "s")
        self._lines: set[_Line] = set()
        self.connections = 0
        self.calls = 0
        self.lose_replies = 0
        """So many calls are carried out by the server; their replies are lost and the connection is cut."""
        self.mute = False
        """Replies vanish and the connection stays, as with a half-open socket."""
        self.cut_at: int | None = None
        """The next call is passed on up to this byte only, then the connection is cut."""
        self.swallow: bytes | None = None
        """Requests that hold these bytes are never answered and their connection stays; `swallowed` counts them."""
        self.swallow_whole = False
        """They do not even reach the server."""
        self.swallowed = 0
        self.delay_s = 0.0
        """Replies come so much later."""
        self.hold_after: bytes | None = None
        """The next read is passed on up to and with these bytes, the rest on `release`."""
        self.held: tuple[asyncio.StreamWriter, bytes] | None = None

    @property
    def url(self) -> str:
        """Where to connect instead of the server itself."""
        return f"unix://{self._path}"

    def say(self, reply: bytes) -> None:
        """Send bytes that nobody asked for down every connection."""
        for line in self._lines:
            line.caller.write(reply)

    def release(self) -> None:
        """Pass on what was held."""
        assert self.held is not None, "nothing is held"
        writer, data = self.held
        writer.write(data)
        self.held = None

    def cut(self) -> None:
        """Cut every connection."""
        for line in tuple(self._lines):
            line.cut()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*(line.ended for line in tuple(self._lines)), return_exceptions=True)
        await self._server.wait_closed()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, caller_reader: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either end closes it."""
        self.connections += 1
        if isinstance(self._address, str):
            opening = asyncio.open_unix_connection(self._address)
        else:
            opening = asyncio.open_connection(*self._address)
        try:
            server_reader, server = await opening
        except OSError:
            caller.close()
            return
        line = _Line(self, caller, server)
        self._lines.add(line)
        requests = asyncio.create_task(_pump(caller_reader, line.request))
        replies = asyncio.create_task(_pump(server_reader, line.reply))
        await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
        line.cut()
        await asyncio.gather(requests, replies, return_exceptions=True)
        self._lines.discard(line)
        line.ended.set_result(None)


class _Line:
    """One connection: its two ends, and what fails on it."""

    def __init__(self, proxy: Proxy, caller: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy, self.caller, self._server = proxy, caller, server
        self._loses = self._silent = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def request(self, data: bytes) -> None:
        """Pass a request on, whole or in part."""
        proxy = self._proxy
        if CALL in data:
            proxy.calls += 1
            if proxy.lose_replies:
                proxy.lose_replies -= 1
                self._loses = True
            if proxy.cut_at is not None:
                data, proxy.cut_at = data[: proxy.cut_at], None
                self._server.write(data)
                self._server.write_eof()
                self.caller.close()
                return
        if proxy.swallow is not None and proxy.swallow in data:
            proxy.swallowed += 1
            self._silent = True
            if proxy.swallow_whole:
                return
        if READ in data and proxy.hold_after is not None:
            head, mark, tail = data.partition(proxy.hold_after)
            data, proxy.held, proxy.hold_after = head + mark, (self._server, tail), None
        self._server.write(data)

    def reply(self, data: bytes) -> None:
        """Pass a reply on, now or later, or lose it."""
        if self._loses:
            self.cut()
        elif self._proxy.delay_s:
            asyncio.get_running_loop().call_later(self._proxy.delay_s, self._pass, data)
        elif not (self._proxy.mute or self._silent):
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        if not self.caller.is_closing():
            self.caller.write(data)

    def cut(self) -> None:
        """Close both ends at once."""
        self.caller.transport.abort()
        self._server.transport.abort()


async def _pump(reader: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            take(data)
