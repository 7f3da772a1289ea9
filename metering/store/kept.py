"""Answers of requests that carried an Idempotency-Key, kept for their repeats.

Where an answer lies and what it is sealed with are both derived from the key and its caller, and the store holds
neither: whoever reads it finds no key, no caller and no answer. A repeat brings the key that opens its own answer.
"""

import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metering.errors import IdempotencyInProgress, IdempotencyKeyReused, IdempotencyNotKept
from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

RUN_S: Final = 25.0
"""Longest run of a request with a key. A handler takes milliseconds; this is a store that answers at the last moment
again and again."""

LEASE_S: Final = 30.0
"""When a try that never finished (its worker died) is given up: after the longest run, and the finish that follows."""

KEPT_BYTES_MAX: Final = 64 * 1024
"""Largest answer kept, compressed: results of 1,000 events have about 10 KiB. A larger one is noted, not kept."""

_PLAIN_BYTES_MAX: Final = 2 * 1024 * 1024
"""Largest answer that is tried: compressing it takes 10 ms."""

_SQUEEZED_FROM: Final = 1024
"""Answers smaller than this are kept as they are: compressing saves less than it costs."""

_NONCE_BYTES: Final = 12
"""NIST SP 800-38D: 96 bits, random; one sealing key sees one answer, or two where a try was given up."""

_TOO_LARGE: Final = b"-"
_PLAIN: Final = b"="
_SQUEEZED: Final = b"z"
"""First byte of what is sealed: no answer, an answer, a compressed one."""

_BEGUN, _ANSWERED, _REUSED = 1, 2, 3


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent: status, content type, the further headers of its handler, every byte of its body."""

    status: int
    kind: bytes
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Try:
    """One try at a request with a key. `name` names the request: the same for each of its tries, for nobody else's."""

    name: str
    place: str
    request: bytes
    token: str
    seal: bytes = field(repr=False)


class KeptAnswers:
    """The answers of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, secret: bytes, *, keep_s: int, fake: bool) -> None:
        self._client = client
        self._keys = keys
        self._secret = secret
        self._keep_ms = keep_s * 1000
        self._begin = client.register_script(script("begin", fake=fake).text)
        self._finish = client.register_script(script("finish", fake=fake).text)

    def attempt(self, caller: Sequence[str], key: str, request: Sequence[bytes]) -> Try:
        """A try of `caller` (whatever tells callers apart) at what `request` says, under `key`. Asks nobody."""
        scope = [part.encode() for part in (*caller, key)]
        digest = self._digest(b"place", scope, 16).hex()
        fingerprint = self._digest(b"request", request, 16)
        name = self._digest(b"name", [*scope, fingerprint], 16).hex()
        return Try(name, self._keys.kept(digest), fingerprint, secrets.token_hex(8), self._digest(b"seal", scope, 32))

    async def begin(self, one: Try) -> KeptAnswer | None:
        """None: run the request, then `finish` or `forget` it. Else the answer it had.

        Raises IdempotencyKeyReused, IdempotencyInProgress, IdempotencyNotKept, and the 503 problems.
        """
        state, *more = await answered(self._begin(keys=[one.place], args=[one.token, one.request, int(LEASE_S * 1000)]))
        if state == _BEGUN:
            return None
        if state == _ANSWERED:
            return self._opened(one, more[0])
        if state == _REUSED:
            raise IdempotencyKeyReused
        raise IdempotencyInProgress

    async def finish(self, one: Try, answer: KeptAnswer) -> None:
        """Keep the answer of a try that has run. Raises the 503 problems; repeating it is safe."""
        await self._settle(one, self._sealed(one, answer))

    async def forget(self, one: Try) -> None:
        """Let a repeat run the request again. Raises the 503 problems; without it the lease ends by itself."""
        await self._settle(one, b"")

    async def _settle(self, one: Try, answer: bytes) -> None:
        await answered(self._finish(keys=[one.place], args=[one.token, one.request, answer, self._keep_ms]))

    def _digest(self, use: bytes, parts: Sequence[bytes], size: int) -> bytes:
        """A keyed digest of `parts`, each after its length; one for each use, so that none tells of another."""
        digest = blake2b(key=self._secret, digest_size=size, person=use)
        for part in parts:
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.digest()

    def _sealed(self, one: Try, answer: KeptAnswer) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(one.seal).encrypt(nonce, _packed(answer), one.request)

    def _opened(self, one: Try, box: bytes) -> KeptAnswer:
        try:
            packed = AESGCM(one.seal).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], one.request)
        except (InvalidTag, ValueError) as error:
            raise IdempotencyNotKept("the kept answer cannot be read any more") from error
        return _unpacked(packed)


def _packed(answer: KeptAnswer) -> bytes:
    """An answer as bytes: how, then status, type and headers on one line, then the body."""
    head = orjson.dumps([answer.status, answer.kind.decode("latin-1"), dict(answer.headers)])
    if len(answer.body) > _PLAIN_BYTES_MAX:
        return _TOO_LARGE
    plain = head + b"\n" + answer.body
    how, packed = (_PLAIN, plain) if len(plain) < _SQUEEZED_FROM else (_SQUEEZED, zlib.compress(plain, level=1))
    return how + packed if len(packed) <= KEPT_BYTES_MAX else _TOO_LARGE


def _unpacked(packed: bytes) -> KeptAnswer:
    """The answer again. Raises IdempotencyNotKept where it was too large."""
    how, rest = packed[:1], packed[1:]
    if how == _TOO_LARGE:
        raise IdempotencyNotKept
    plain = zlib.decompress(rest) if how == _SQUEEZED else rest
    head, _, body = plain.partition(b"\n")
    status, kind, headers = orjson.loads(head)
    return KeptAnswer(status, kind.encode("latin-1"), headers, body)
