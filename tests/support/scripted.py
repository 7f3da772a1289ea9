"""A loopback HTTP server that gives the answers it was told, byte for byte, and keeps the requests it got."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

DATE: Final = "Wed, 25 Nov 2026 12:00:00 GMT"
DATE_MS: Final = 1_795_608_000_000

Play = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What came in: `path` is `target` without its query, `form` the decoded body or, without one, the query."""

    method: str
    target: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    form: Mapping[str, str]


@dataclass(slots=True)
class Scripted:
    """The script: each request takes the next of `plays`; the last one stays."""

    url: str = ""
    plays: list[Play] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def answer(
        self, body: Any = b"{}", status: int = 200, *, headers: Mapping[str, str] | None = None, times: int = 1
    ) -> None:
        """Answer the next `times` requests; what is not bytes goes out as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.plays += [_whole(raw, status, {"Date": DATE, **(headers or {})})] * times

    def refuse(self, status: int, *, headers: Mapping[str, str] | None = None, times: int = 1, **error: Any) -> None:
        """Answer with an error as Stripe writes it."""
        self.answer({"error": {"type": "invalid_request_error", **error}}, status, headers=headers, times=times)

    def play(self, play: Play) -> None:
        """Do something else with the next connection."""
        self.plays.append(play)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a request, a play, and the end of it."""
        try:
            self.requests.append(await _read(reader))
            await (self.plays.pop(0) if len(self.plays) > 1 else self.plays[0])(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Request(method, target, path, headers, body, dict(parse_qsl(body.decode() or query)))


def _whole(body: bytes, status: int, headers: Mapping[str, str]) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return play


async def torn(writer: asyncio.StreamWriter) -> None:
    """An answer that ends in the middle of its body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()


async def reset(writer: asyncio.StreamWriter) -> None:
    """The connection goes away without a word."""
    writer.transport.abort()


def silent(until: asyncio.Event, said: bytes = b"") -> Play:
    """`said`, and then nothing until the test is over."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        await until.wait()

    return play


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    """A running one on a free port."""
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    script.url = f"http://{host}:{port}"
    try:
        yield script
    finally:
        server.close()
        await server.wait_closed()
