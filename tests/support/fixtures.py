"""Real servers as fixtures: one process a session, an empty database a test. A conftest imports what it needs."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from redis.asyncio import Redis

from metering.store.binaries import Binary
from metering.store.connect import connect
from tests.support.servers import StoreServer, binaries


@pytest.fixture(scope="session")
def store_session() -> Iterator[StoreServer]:
    """The server of choice, running for the whole session."""
    with StoreServer() as server:
        yield server


@pytest.fixture(scope="session", name="store_session")
def unsynced_session() -> Iterator[StoreServer]:
    """The same, which leaves it to the system when a write reaches the disk: a server that is killed loses nothing
    either, and no test here waits for a disk.
    """
    with StoreServer(appendfsync="no") as server:
        yield server


@pytest.fixture
def store(store_session: StoreServer) -> StoreServer:
    """The session's server, empty, with no script loaded."""
    return _emptied(store_session)


KINDS: Final = {"redis", "valkey"}
"""What the service promises to run on."""


def missing_kinds(found: list[Binary], ci: str | None) -> str:
    """What to do about a kind of server that is not here: nothing at home, but a build machine (CI set) has both."""
    missing = KINDS - {binary.name for binary in found}
    if not ci or not missing:
        return ""
    return f"CI is set and no usable {' or '.join(sorted(missing))} server is here: apt install redis-server"


@pytest.fixture(scope="session", params=binaries(), ids=lambda binary: f"{binary.name}-{binary.version}")
def each_store_session(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """Each kind of server installed here in turn; a failure where CI is set and one kind is missing."""
    missing = missing_kinds(binaries(), os.environ.get("CI"))
    assert not missing, missing
    binary: Binary = request.param
    with StoreServer(binary) as server:
        yield server


@pytest.fixture
def each_store(each_store_session: StoreServer) -> StoreServer:
    """Each kind of server installed here in turn, empty."""
    return _emptied(each_store_session)


@pytest.fixture(scope="session")
def cluster_session() -> Iterator[StoreServer]:
    """A cluster of one node that holds all slots."""
    with StoreServer(cluster=True) as server:
        yield server


@pytest.fixture
def cluster(cluster_session: StoreServer) -> StoreServer:
    """The cluster of one node, empty."""
    return _emptied(cluster_session)


@pytest.fixture
async def client(store: StoreServer) -> AsyncIterator[Redis]:
    """A client of the empty server."""
    async with connect(store.url) as client:
        yield client


def _emptied(server: StoreServer) -> StoreServer:
    """Start `server` again if a test ended it, and take everything out of it."""
    if not server.running():
        server.start()
    assert server.say("FLUSHALL", "SYNC").startswith("+OK")
    assert server.say("SCRIPT", "FLUSH", "SYNC").startswith("+OK")
    return server
