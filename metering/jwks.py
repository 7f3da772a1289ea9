"""The keys behind a JWKS URL: fetched beside the event loop, kept while the URL does not answer, renewed by a loop.

PyJWT's own client is not used: it reads a document of any size, waits inside the event loop, asks a server that is down
again for every token, loses its keys when they are due and the server is away, and takes shared and private keys.
"""

import asyncio
import http.client
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import structlog

from metering.clock import Clock
from metering.errors import KeysUnavailable
from metering.public_keys import PublicKey, UnusableKeysError, fitting, keys_of_jwks

FETCH_S: Final = 3.0
"""For one answer. Issuers answer in a tenth of a second; a request may be waiting for it."""

BYTES_MAX: Final = 128 * 1024
"""Of a document. One key with its certificates has 5 KiB."""

REFRESH_S: Final = 300.0
"""Between two fetches: the longest that a key which was taken out of the document is still accepted."""

RETRY_S: Final = 15.0
"""After a fetch that failed."""

REFETCH_S: Final = 5.0
"""Between two fetches because of tokens with unknown keys: whoever makes such tokens must not drive our requests."""

TURN_S: Final = 5.0
"""Between two looks at whether a fetch is due."""

_CHUNK: Final = 16 * 1024
_OK: Final = 200

Fetch = Callable[[], Awaitable[bytes]]

log = structlog.get_logger(__name__)


class FetchError(Exception):
    """The document could not be had."""


class Jwks:
    """The keys of one document. A `metering.jwts.KeySource`. `on_removed` is called when a key is gone."""

    def __init__(self, fetch: Fetch, clock: Clock, *, on_removed: Callable[[], None] = lambda: None) -> None:
        self._fetch = fetch
        self._clock = clock
        self._on_removed = on_removed
        self.keys: Sequence[PublicKey] = ()
        self.failure = "it was not fetched yet"
        self._begun_s = -math.inf
        self._due_s = -math.inf
        self._running: asyncio.Task[None] | None = None

    def known(self, algorithm: str, kid: str | None) -> Sequence[PublicKey]:
        """The keys that the last good document has for the algorithm and key id."""
        return fitting(self.keys, algorithm, kid)

    async def learn(self, kid: str | None) -> bool:
        """Fetch the document where it may have a key that is not known; whether it was fetched.

        Raises KeysUnavailable where it cannot be had.
        """
        if kid is not None and any(key.kid == kid for key in self.keys):
            return False
        fetches = self._busy() or self._clock.monotonic() - self._begun_s >= REFETCH_S
        if fetches:
            await self.refresh()
        if self.failure:
            raise KeysUnavailable
        return fetches

    async def turn(self) -> None:
        """Fetch the document when it is due. Never raises: failures are logged."""
        if self._clock.monotonic() >= self._due_s:
            await self.refresh()

    async def refresh(self) -> None:
        """Fetch the document now, or wait for the fetch that runs. Never raises: `failure` says what is wrong."""
        if not self._busy():
            self._begun_s = self._clock.monotonic()
            self._running = asyncio.create_task(self._renew())
        if self._running is not None:
            await asyncio.shield(self._running)  # others wait for it too

    async def close(self) -> None:
        """End a fetch that runs."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _busy(self) -> bool:
        return self._running is not None and not self._running.done()

    async def _renew(self) -> None:
        try:
            keys, others = keys_of_jwks(await self._fetch())
        except (FetchError, UnusableKeysError) as error:
            self._due_s = self._clock.monotonic() + RETRY_S
            self.failure = str(error)
            log.warning("signing keys not fetched", reason=self.failure, kept=len(self.keys))
            return
        self._due_s = self._clock.monotonic() + REFRESH_S
        self.failure = ""
        self._take(keys, others)

    def _take(self, keys: Sequence[PublicKey], others: int) -> None:
        """Put `keys` in the place of those before."""
        came = [key.kid for key in keys if key not in self.keys]
        went = [key.kid for key in self.keys if key not in keys]
        self.keys = keys
        if came or went:
            log.info("signing keys changed", came=came, went=went, passed_over=others)
        if went:
            self._on_removed()


class Download:
    """GETs one document in a thread of its own, at most one at a time. Redirects are not followed.

    The thread is a daemon: a server that sends a byte now and then must not hold the end of the service.
    """

    def __init__(self, url: str, clock: Clock, *, within_s: float = FETCH_S) -> None:
        self._url = url
        self._clock = clock
        self._within_s = within_s
        self._thread: threading.Thread | None = None

    async def __call__(self) -> bytes:
        """The document. Raises FetchError."""
        if self._thread is not None and self._thread.is_alive():
            raise FetchError("the fetch before is still waiting for the server")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def settle(document: bytes | None, error: FetchError | None) -> None:
            if answer.done():  # nobody waits any more
                return
            if error is None and document is not None:
                answer.set_result(document)
            else:
                answer.set_exception(error or FetchError("nothing came"))

        def run() -> None:
            try:
                result: tuple[bytes | None, FetchError | None] = (self._got(), None)
            except FetchError as error:
                result = (None, error)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, *result)

        self._thread = threading.Thread(target=run, name="jwks", daemon=True)
        self._thread.start()
        try:
            return await asyncio.wait_for(answer, self._within_s + 1)
        except TimeoutError as error:
            raise FetchError(f"no answer within {self._within_s:g} s") from error

    def _got(self) -> bytes:
        """The document, from inside the thread. Raises FetchError."""
        try:
            return self._read()
        except HTTPError as error:
            with error:
                raise FetchError(f"the server answered {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(f"{type(error).__name__}: {getattr(error, 'reason', error)}") from error

    def _read(self) -> bytes:
        end_s = self._clock.monotonic() + self._within_s
        request = Request(self._url, headers={"Accept": "application/json", "User-Agent": "usage-metering"})  # noqa: S310 - the settings let https, and http on loopback, through
        handlers: list[Any] = [_NoRedirect()]
        if request.type == "http":  # on loopback, where a proxy has no business
            handlers.append(ProxyHandler({}))
        parts: list[bytes] = []
        with build_opener(*handlers).open(request, timeout=self._within_s) as response:
            if response.status != _OK:
                raise FetchError(f"the server answered {response.status}")
            while chunk := response.read1(_CHUNK):
                parts.append(chunk)
                if sum(map(len, parts)) > BYTES_MAX:
                    raise FetchError(f"the document has more than {BYTES_MAX} bytes")
                if self._clock.monotonic() > end_s:
                    raise FetchError(f"the document was not complete after {self._within_s:g} s")
        return b"".join(parts)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect may lead anywhere, to plain http too: it is an answer like any other that is not 200."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
