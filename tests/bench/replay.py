"""The script's own limit: the very calls that the service makes for a batch, sent again to a copy of the store, alone.

A copy of the data set is made twice. On the first the service's own batcher counts events while a proxy writes down
every call of a script; to the second the same bytes go through a plain socket. So ids, organisations, shards and
claims are those of the measured data set, and nothing but the store's CPU is looked at.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import hiredis

from metering.clock import SystemClock
from metering.store.connect import connect
from metering.store.counters import Counters
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.marker import open_dataset
from metering.store.orgs import Orgs
from metering.store.scripts import NAMES, script
from metering.store.timing import StoreTime
from metering.usage import Result, UsageEvent
from plans.catalogue import Catalogue
from tests.bench.rig import STORE_CORE, counted, cpu_s
from tests.support.servers import StoreServer
from tests.support.wait import wait_until

IN_FLIGHT: Final = 16
"""Calls on their way at once, as in the measurements of the script (SPEED: P = 16)."""

PARTITIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """What the store alone took: events, calls of scripts, CPU seconds."""

    events: int
    calls: int
    cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        """Events per CPU-second of the store."""
        return self.events / self.cpu_s


def rewritten(store: StoreServer) -> None:
    """Let the store write its data set compactly, so that copies load quickly."""
    store.say("BGREWRITEAOF")
    wait_until(
        lambda: (
            "aof_rewrite_in_progress:0\r" in store.say("INFO", "persistence")
            and "aof_rewrite_scheduled:0\r" in store.say("INFO", "persistence")
        ),
        timeout_s=120,
        what="the data set is rewritten",
    )


@contextmanager
def copy_of(store: StoreServer) -> Iterator[StoreServer]:
    """A server of its own on a copy of the data of `store`, which nobody writes to meanwhile."""
    copy = StoreServer()
    for part in Path(store.folder).glob("appendonlydir*"):
        shutil.copytree(part, copy.folder / part.name)
    with copy as running:
        wait_until(
            lambda: "loading:0\r" in running.say("INFO", "persistence"), timeout_s=120, what="the copy is loaded"
        )
        os.sched_setaffinity(running.pid, {STORE_CORE})
        yield running


def limit_of(store: StoreServer, catalogue: Catalogue, batches: Sequence[Sequence[UsageEvent]]) -> Limit:
    """Measure what the calls for `batches` cost a store alone. Raises AssertionError where an event was not counted."""
    events = sum(map(len, batches))
    with copy_of(store) as first:
        warm, calls = asyncio.run(_recorded(first, catalogue, batches))
        expected = asyncio.run(counted(first))
    with copy_of(store) as second:
        used_s = _played(second, warm, calls)
        assert asyncio.run(counted(second)) == expected, "the replay counted something else"
    return Limit(events, len(calls), used_s)


async def _recorded(
    store: StoreServer, catalogue: Catalogue, batches: Sequence[Sequence[UsageEvent]]
) -> tuple[list[bytes], list[bytes]]:
    """Every call of a script that the batcher makes, encoded, in order: first to know the organisations, then for
    these batches.
    """
    async with _Recorder(store.address) as recorder, connect(recorder.url, database=2) as client:
        dataset = await open_dataset(client, partitions=PARTITIONS, create=False)
        assert dataset is not None
        keys, time, codec = Keys(PARTITIONS), StoreTime(SystemClock()), FieldCodec()
        orgs = Orgs(client, keys, catalogue, time, codec, fake=False)
        counters = Counters(client, keys, orgs, time, codec, secret=dataset.secret, pending_max=100_000)
        for org_id in sorted({event.org_id for batch in batches for event in batch}):
            await counters.track(UsageEvent(org_id, "api_requests", 1, f"known-{recorder.url}"))
        warm = len(recorder.calls)
        for batch in batches:
            outcomes = await counters.track_all(batch)
            assert all(getattr(outcome, "result", None) is Result.RECORDED for outcome in outcomes)
        await counters.close()
        return recorder.calls[:warm], recorder.calls[warm:]


class _Recorder:
    """A proxy that writes down the calls of scripts."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        assert isinstance(address, str), "the bench's store listens on a socket"
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="recorder-"))
        self.url = f"unix://{self._folder}/s"
        self.calls: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self._folder / "s"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._address)
        replies = asyncio.create_task(_pass_on(up_reader, writer))
        while command := await _command(reader):
            if command.split(b"\r\n", 3)[2] == b"EVALSHA":
                self.calls.append(command)
            up_writer.write(command)
        up_writer.close()
        await replies


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def _command(reader: asyncio.StreamReader) -> bytes:
    """One encoded command as it came; empty at the end."""
    head = await reader.readline()
    parts = [head]
    for _ in range(int(head[1:] or 0)):
        size = await reader.readline()
        parts += [size, await reader.readexactly(int(size[1:]) + 2)]
    return b"".join(parts)


def _played(store: StoreServer, warm: Sequence[bytes], calls: Sequence[bytes]) -> float:
    """CPU seconds of the store for `calls`, after `warm`, IN_FLIGHT at a time. No reply may be an error."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(store.address))
        loading = [_encoded("SCRIPT", "LOAD", script(name).text) for name in NAMES]
        _send(line, [_encoded("SELECT", "2"), *loading, *warm])
        before = cpu_s(store.pid)
        _send(line, calls)
        return cpu_s(store.pid) - before


def _send(line: socket.socket, commands: Sequence[bytes]) -> None:
    """Send commands and take all their replies."""
    replies = _Replies(line)
    for number, command in enumerate(commands):
        if number >= IN_FLIGHT:
            replies.take(1)
        line.sendall(command)
    replies.take(min(len(commands), IN_FLIGHT))


class _Replies:
    """Replies of one connection, in order."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._reader = hiredis.Reader()

    def take(self, count: int) -> None:
        """Wait for so many replies."""
        while count:
            reply: Any = self._reader.gets()
            if reply is False:
                self._reader.feed(self._line.recv(1 << 16))
                continue
            assert not isinstance(reply, hiredis.ReplyError), reply
            count -= 1


def _encoded(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
