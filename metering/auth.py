"""Who is calling: the Authorization header -> Caller.

Each kind of credential has its verifier behind one `Authenticator`; nothing past this module knows which kind it
was. Verified headers are remembered for a short time by their digest, never by themselves.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from metering.clock import MS_PER_S, Clock
from metering.errors import Unauthenticated

ADMIN: Final = "admin"
"""The scope (and role) that holds every other scope and sees every organisation."""

USAGE_WRITE: Final = "usage:write"
USAGE_READ: Final = "usage:read"
CHECK: Final = "check"
BILLING_READ: Final = "billing:read"
BILLING_WRITE: Final = "billing:write"
AUDIT: Final = "audit"
KEYS: Final = "keys"
"""Makes, lists and deletes the API keys of an organisation. It is a scope of its own: a leaked key that may only count
must not make others that outlive it."""

HEADER_BYTES_MAX: Final = 8 * 1024
"""Longest Authorization header: ten times a rich token. Decoding two MB of base64 takes 100 ms of CPU."""

CACHE_S: Final = 30.0
"""Longest time a verified header is trusted without looking again."""

CACHE_SIZE: Final = 8192
"""Headers remembered by one worker: 2 MB at most. The oldest goes first."""

_SCHEME_BYTES: Final = len("Bearer ")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credentials held. `org_id` None: the credentials name no organisation."""

    subject: str
    org_id: str | None
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the caller holds `scope`."""
        return scope in self.scopes or ADMIN in self.scopes

    def sees(self, org_id: str) -> bool:
        """Whether the caller may know of this organisation at all."""
        return org_id == self.org_id or ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class Verified:
    """A caller and the instant (ms since the epoch) until which the credentials hold."""

    caller: Caller
    expires_ms: float


class Verifier(Protocol):
    """One kind of credential."""

    async def verify(self, token: str) -> Verified | None:
        """Who sent `token`; None where it is of another kind.

        Raises Unauthenticated where it does not hold, a 503 problem where that cannot be found out now.
        """
        ...


class Authenticator:
    """The header's way to a Caller, over all kinds of credentials, with a cache in front.

    Requests that bring the same unknown header at once wait for one answer: the moment a cache entry runs out, a busy
    client's next hundred requests would all ask.
    """

    def __init__(self, verifiers: Sequence[Verifier], clock: Clock) -> None:
        self._verifiers = verifiers
        self._clock = clock
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._asked: dict[bytes, asyncio.Task[Caller]] = {}
        self._forgotten = 0

    def remembered(self, header: bytes | None, now_s: float) -> Caller | None:
        """The caller of a header verified lately, else None. `now_s` is the stopwatch's time."""
        if header is None or len(header) > HEADER_BYTES_MAX:
            return None
        entry = self._known.get(hashlib.sha256(header).digest())
        return entry[0] if entry is not None and now_s < entry[1] else None

    async def identify(self, header: bytes | None) -> Caller:
        """The caller of an Authorization header. Raises Unauthenticated, or a 503 of its verifier."""
        known = self.remembered(header, self._clock.monotonic())
        if known is not None:
            return known
        token = _bearer(header)
        digest = hashlib.sha256(header or b"").digest()
        asked = self._asked.get(digest)
        if asked is None:
            asked = self._asked[digest] = asyncio.create_task(self._verify(header or b"", token, self._forgotten))
            asked.add_done_callback(partial(self._settled, digest))
        return await asyncio.shield(asked)  # the others wait for it too

    async def _verify(self, header: bytes, token: str, forgotten: int) -> Caller:
        """The caller of a header that is not known. It is remembered unless something was forgotten meanwhile."""
        for verifier in self._verifiers:
            if (verified := await verifier.verify(token)) is not None:
                if forgotten == self._forgotten:
                    self._remember(header, token, verified)
                return verified.caller
        raise refused("the token is of no kind known here")

    def _settled(self, digest: bytes, asked: "asyncio.Task[Caller]") -> None:
        """Nobody joins a question that has been answered."""
        if self._asked.get(digest) is asked:
            del self._asked[digest]
        if not asked.cancelled():
            asked.exception()  # looked at: whoever waited for it may have left

    def forget(self) -> None:
        """Trust nothing verified so far, nor what is being verified now: a credential was withdrawn."""
        self._known.clear()
        self._asked.clear()
        self._forgotten += 1

    def _remember(self, header: bytes, token: str, verified: Verified) -> None:
        if len(header) != _SCHEME_BYTES + len(token):
            return  # spaces more than needed: one token must not fill the cache in thousands of spellings
        left_s = min((verified.expires_ms - self._clock.now_ms()) / MS_PER_S, CACHE_S)
        if left_s <= 0:
            return
        digest = hashlib.sha256(header).digest()
        self._known.pop(digest, None)
        if len(self._known) >= CACHE_SIZE:
            del self._known[next(iter(self._known))]
        self._known[digest] = (verified.caller, self._clock.monotonic() + left_s)


def refused(reason: str) -> Unauthenticated:
    """The 401 for `reason`, with the challenge that RFC 6750 asks for."""
    return Unauthenticated(reason, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _bearer(header: bytes | None) -> str:
    """The token in an Authorization header. Raises Unauthenticated."""
    if header is None:
        raise Unauthenticated("the Authorization header is missing", headers={"WWW-Authenticate": "Bearer"})
    if len(header) > HEADER_BYTES_MAX:
        raise refused(f"the Authorization header is longer than {HEADER_BYTES_MAX} bytes")
    scheme, _, token = header.partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not token or not token.isascii() or b" " in token:
        raise refused("the Authorization header is not 'Bearer <token>'")
    return token.decode("ascii")
