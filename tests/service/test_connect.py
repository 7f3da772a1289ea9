"""The border to the store's driver: how it is set up, and what becomes of each of its errors."""

import inspect
import socket

import pytest
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis

from metering.address import AddressError
from metering.clock import SystemClock
from metering.errors import InternalError, LedgerFull, OrgCorrupt, Overloaded, Problem, StorageUnavailable, leaves
from metering.store.connect import PROBLEM_OF, StoreError, connect, normalise_url, problem_of
from tests.support.fixtures import client, store, store_session
from tests.support.servers import StoreServer, free_port

__all__ = ["client", "store", "store_session"]

SAFE_TO_RETRY = (StorageUnavailable, LedgerFull, Overloaded, InternalError, OrgCorrupt)


def _driver_errors() -> set[type[Exception]]:
    """Every exception class that the driver defines."""
    members = inspect.getmembers(exceptions, inspect.isclass)
    return {cls for _, cls in members if issubclass(cls, Exception) and cls.__module__ == exceptions.__name__}


def test_every_error_of_the_driver_has_a_place() -> None:
    assert _driver_errors() == set(PROBLEM_OF)


@pytest.mark.parametrize("cls", PROBLEM_OF)
def test_every_error_becomes_a_problem_with_words_of_our_own(cls: type[Exception]) -> None:
    error = cls("3999 127.0.0.1:6379")
    problem = problem_of(error)
    assert isinstance(problem, SAFE_TO_RETRY)
    assert "127.0.0.1" not in problem.detail


def test_every_problem_of_the_store_is_a_leaf_of_the_error_tree() -> None:
    assert set(PROBLEM_OF.values()) <= set(leaves())


def test_what_a_call_may_raise_covers_every_error_of_the_driver_but_faults_of_this_program() -> None:
    outside = {cls for cls in PROBLEM_OF if not issubclass(cls, StoreError)}
    assert outside == {exceptions.ChildDeadlockedError, exceptions.IncorrectPolicyType}


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'."), LedgerFull),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), LedgerFull),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), LedgerFull),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), LedgerFull),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), StorageUnavailable),
        (exceptions.ResponseError("UNKILLABLE Sorry the script already executed write commands"), StorageUnavailable),
        (exceptions.ResponseError("READONLY You can't write against a read only replica."), StorageUnavailable),
        (exceptions.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"), StorageUnavailable),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), OrgCorrupt),
        (exceptions.ResponseError("ERR user_script:1: attempt to index a nil value"), InternalError),
        (exceptions.ConnectionError("No connection available."), Overloaded),
        (exceptions.ConnectionError("Connection closed by server."), StorageUnavailable),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), StorageUnavailable),
        (ConnectionResetError(), StorageUnavailable),
        (OSError("no route"), StorageUnavailable),
        (TimeoutError(), StorageUnavailable),
        (ValueError("a bug"), InternalError),
    ],
)
def test_an_error_becomes_the_problem_that_helps_the_caller(error: Exception, problem: type[Problem]) -> None:
    assert type(problem_of(error)) is problem


def test_a_problem_that_passes_says_when_to_come_back() -> None:
    assert problem_of(exceptions.TimeoutError()).headers == {"Retry-After": "1"}
    assert problem_of(exceptions.DataError("x")).headers == {}


def _pool(client: Redis) -> BlockingConnectionPool:
    pool = client.connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    return pool


def test_a_full_pool_is_waited_for_no_longer_than_a_second() -> None:
    timeout_s = _pool(connect("redis://h")).timeout
    assert timeout_s is not None
    assert timeout_s <= 1


async def test_replies_are_bytes_in_the_old_protocol(client: Redis) -> None:
    await client.set("key", "value")
    assert await client.get("key") == b"value"
    assert _pool(client).connection_kwargs["protocol"] == 2


async def test_the_store_knows_the_service_by_name(client: Redis) -> None:
    assert await client.client_getname() == "usage-metering"


async def test_a_database_in_the_url_is_the_one_used(store: StoreServer) -> None:
    async with connect(f"{store.url}?db=5", database=2) as client:
        await client.set("key", 1)
    assert "db5:keys=1" in store.say("INFO", "keyspace")


def test_a_url_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(AddressError, match="scheme"):
        normalise_url("http://h", database=0)


async def test_a_store_that_is_not_there_is_told_at_once() -> None:
    started_s = SystemClock().monotonic()
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()
    assert SystemClock().monotonic() - started_s < 1


async def test_a_store_that_does_not_answer_is_given_up_and_never_asked_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connect(f"redis://127.0.0.1:{silent.getsockname()[1]}", reply_timeout_s=0.2) as client:
            with pytest.raises(exceptions.TimeoutError):
                await client.incr("count")
        silent.settimeout(0.1)
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):
            silent.accept()
