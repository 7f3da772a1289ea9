"""One way to reach the store, and the border where its errors become ours."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from redis import RedisError, exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import RedisClusterException, ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

from metering.address import store_address
from metering.errors import InternalError, LedgerFull, OrgCorrupt, Overloaded, Problem, StorageUnavailable

POOL_SIZE: Final = 32
"""Connections of one worker off the hot path: more would only queue inside the single-threaded server."""

POOL_TIMEOUT_S: Final = 0.5
"""Wait for a free connection. Longer than any healthy reply, short enough that a request still has time to
answer 503 inside its two seconds instead of piling up."""

REPLY_TIMEOUT_S: Final = 1.0
"""Wait for one reply. A script takes 1.5 ms and an fsync tens of ms on a slow disk; a second without an
answer means the store hangs, and the caller still has one retry inside its two seconds."""

CONNECT_TIMEOUT_S: Final = 0.5
"""Wait for a connection. Ten times a slow TLS handshake inside one region."""

IDLE_CHECK_S: Final = 15
"""A connection idle this long is checked with PING first: firewalls drop idle ones silently, often at 60 s."""

RETRY_BASE_S: Final = 0.05
RETRY_CAP_S: Final = 0.5
"""Waits between retries grow from the first to the second, with full jitter."""

PATIENT: Final = 6
"""Retries for calls that are safe to repeat (reads, compare-and-set): about two seconds, the length of a restart."""

RETRY_AFTER_S: Final = 1

CLIENT_NAME: Final = "usage-metering"


def normalise_url(url: str, *, database: int) -> str:
    """`url` as the driver takes it, its database settled. Raises metering.address.AddressError."""
    return store_address(url, database=database).url


def connect(
    url: str,
    *,
    database: int = 0,
    pool_size: int = POOL_SIZE,
    pool_timeout_s: float = POOL_TIMEOUT_S,
    reply_timeout_s: float | None = REPLY_TIMEOUT_S,
    retries: int = 0,
    name: str = CLIENT_NAME,
) -> Redis:
    """A client for the store at `url`; connects on first use, answers in bytes.

    `retries` stays 0 for anything that writes: each mutating script carries its token and the caller, who
    knows the time left, repeats it. Raises metering.address.AddressError for a URL that cannot be used.
    """
    pool = BlockingConnectionPool.from_url(
        normalise_url(url, database=database),
        max_connections=pool_size,
        timeout=pool_timeout_s,
        socket_timeout=reply_timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=IDLE_CHECK_S,
        retry=Retry(ExponentialWithJitterBackoff(base=RETRY_BASE_S, cap=RETRY_CAP_S), retries),
        client_name=name,
        decode_responses=False,
        # RESP2: the shapes of its replies are the same on every server from 7.0 on and with every driver.
        protocol=2,
    )
    return Redis.from_pool(pool)


def text_of(value: bytes | str | None) -> str:
    """A reply as text; the driver's types allow for every mode it has, this service uses bytes."""
    return value.decode() if isinstance(value, bytes) else value or ""


_FULL: Final = ("OOM", "MISCONF", "NOREPLICAS")
"""First words of the refusals that mean: reads work, writes do not, and retrying at once is no help."""

_POOL_EMPTY: Final = "No connection available."
"""What BlockingConnectionPool says when its timeout passed; the driver has no class for it."""

PROBLEM_OF: Final[dict[type[Exception], type[Problem]]] = {
    exceptions.RedisError: StorageUnavailable,
    StoreConnectionError: StorageUnavailable,
    StoreTimeoutError: StorageUnavailable,
    exceptions.AuthenticationError: StorageUnavailable,
    exceptions.AuthenticationWrongNumberOfArgsError: StorageUnavailable,
    exceptions.AuthorizationError: StorageUnavailable,
    exceptions.ExternalAuthProviderError: StorageUnavailable,
    exceptions.NoPermissionError: StorageUnavailable,
    exceptions.BusyLoadingError: StorageUnavailable,
    exceptions.MaxConnectionsError: Overloaded,
    exceptions.OutOfMemoryError: LedgerFull,
    exceptions.ReadOnlyError: StorageUnavailable,
    exceptions.ClusterError: StorageUnavailable,
    exceptions.ClusterDownError: StorageUnavailable,
    exceptions.MasterDownError: StorageUnavailable,
    exceptions.AskError: StorageUnavailable,
    exceptions.MovedError: StorageUnavailable,
    exceptions.TryAgainError: StorageUnavailable,
    exceptions.SlotNotCoveredError: StorageUnavailable,
    RedisClusterException: StorageUnavailable,
    # The store lost our script or our session state; the next call loads it again.
    exceptions.NoScriptError: StorageUnavailable,
    exceptions.NoSuchFieldsetError: StorageUnavailable,
    # Somebody else was quicker; nothing was written.
    exceptions.WatchError: StorageUnavailable,
    exceptions.ExecAbortError: StorageUnavailable,
    exceptions.LockError: StorageUnavailable,
    exceptions.LockNotOwnedError: StorageUnavailable,
    # A reply that cannot be read: the connection is out of step and is dropped.
    exceptions.InvalidResponse: StorageUnavailable,
    # Faults of this program: they must be seen, not retried.
    ResponseError: InternalError,
    exceptions.DataError: InternalError,
    exceptions.PubSubError: InternalError,
    exceptions.ModuleError: InternalError,
    exceptions.ClusterCrossSlotError: InternalError,
    exceptions.CrossSlotTransactionError: InternalError,
    exceptions.InvalidPipelineStack: InternalError,
    exceptions.IncorrectPolicyType: InternalError,
    exceptions.ChildDeadlockedError: InternalError,
}
"""Every class of redis.exceptions, by hand: a new one in a new driver fails the test until it is placed."""

StoreError: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a call to the store may raise, for `except StoreError as error: raise problem_of(error) from error`."""

MOMENTARY: Final = (
    "ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "READONLY", "TRYAGAIN", "UNKILLABLE",
)  # fmt: skip
"""First words of refusals that pass by themselves and have no class of their own in every path."""


def problem_of(error: Exception) -> Problem:
    """The problem that a caller of the service sees for an error of the store.

    The store's own words stay out of it (they name keys and hosts); raise it `from` the error instead.
    """
    kind = _kind(error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if kind.status == StorageUnavailable.status else None
    return kind(headers=headers)


async def answered(call: Awaitable[Any]) -> Any:
    """The store's answer to a call of the driver. Raises the problems of its errors."""
    try:
        return await call
    except StoreError as error:
        raise problem_of(error) from error


def texts(raw: Mapping[Any, Any]) -> dict[str, str]:
    """A hash as the driver brings it, as text."""
    return {text_of(name): text_of(value) for name, value in raw.items()}


def _kind(error: Exception) -> type[Problem]:
    """The class of problem; what the server said first wins over how the driver classed it."""
    word = str(error).split(" ", 1)[0].removeprefix("-")
    if isinstance(error, ResponseError):
        if word in _FULL:
            return LedgerFull
        if word == "WRONGTYPE":
            return OrgCorrupt
        if word in MOMENTARY:
            return StorageUnavailable
    if isinstance(error, StoreConnectionError) and str(error) == _POOL_EMPTY:
        return Overloaded
    classes = (PROBLEM_OF[cls] for cls in type(error).__mro__ if cls in PROBLEM_OF)
    fallback = StorageUnavailable if isinstance(error, OSError | TimeoutError) else InternalError
    return next(classes, fallback)
