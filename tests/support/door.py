"""A door on loopback before another server: shut, every connection is refused, and those that are open break."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Door:
    """`url` stays the same while it is shut and opened."""

    host: str
    to_port: int
    port: int
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._pass, self.host, self.port, reuse_port=True)

    async def shut(self) -> None:
        """Refuse everybody, and break off who is inside."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self.host, self.to_port)
        self._open |= {writer, back}
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._open -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def a_door(url: str) -> AsyncIterator[Door]:
    """An open door before `url`."""
    parts = urlsplit(url)
    with socket.socket() as held:  # bound all the time and never listening: nobody else takes the port of a shut door
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((parts.hostname, 0))
        door = Door(parts.hostname or "", parts.port or 0, held.getsockname()[1])
        await door.open()
        try:
            yield door
        finally:
            await door.shut()
