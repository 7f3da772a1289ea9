"""Real servers as fixtures: one process a session, an empty database a test. A conftest imports what it needs."""

from collections.abc import AsyncIterator, Iterator

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


@pytest.fixture
def store(store_session: StoreServer) -> StoreServer:
    """The session's server, empty, with no script loaded."""
    return _emptied(store_session)


@pytest.fixture(scope="session", params=binaries(), ids=lambda binary: f"{binary.name}-{binary.version}")
def each_store_session(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """Each kind of server installed here in turn."""
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
