"""Requests with an Idempotency-Key: run once, and answered again as they were (draft-ietf-httpapi-idempotency-key).

A key belongs to its caller. What is kept is what the handler decided: answers below 500, and refusals that waiting
does not mend. Faults found before the handler, faults of the service and "later" are not kept: a repeat runs again.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

import structlog

from metering import log as log_setup
from metering.api.answers import PROBLEM, problem_body
from metering.api.bodies import Headers, Receive, fault
from metering.api.route import Call, Handler, Reply, Route
from metering.api.services import Kept
from metering.auth import ADMIN, Caller
from metering.errors import Invalid, Problem, StorageUnavailable
from metering.store.kept import RUN_S, KeptAnswer, Try

KEY_HEADER: Final = b"idempotency-key"

KEY_CHARS_MAX: Final = 255

SECRET_KEY_CHARS_MIN: Final = 20
"""Shortest key where the answer shows a secret: it is sealed with what is derived from the key, so nobody may guess
it. UUIDs, ULIDs and nano ids are longer."""

_KEY_PATTERN: Final = (
    r"^(?:[!#-+\--:<-\[\]-~]{shortest,255}"  # bare: visible ASCII without quote, comma, semicolon and backslash
    r'|"(?:[ !#-\[\]-~]|\\["\\]){shortest,255}")$'  # RFC 8941 string
)
KEY_PATTERN: Final = _KEY_PATTERN.replace("shortest", "1")
SECRET_KEY_PATTERN: Final = _KEY_PATTERN.replace("shortest", str(SECRET_KEY_CHARS_MIN))
_KEY: Final = re.compile(KEY_PATTERN.removesuffix("$"))
_ESCAPED: Final = re.compile(r"\\(.)")

_REQUEST_HEADERS: Final = frozenset({b"content-type", b"content-encoding", b"if-match", b"if-none-match"})
"""Headers that say what is asked for; with them all of CloudEvents' (`ce-`)."""

_BODY_DIGEST_BYTES: Final = 32
"""Nobody makes two bodies with one digest of this size."""

_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429

log = structlog.get_logger(__name__)


def key_of(route: Route, raw: Sequence[tuple[bytes, bytes]]) -> str:
    """The key that the header names, quoted or bare. Raises Invalid."""
    key = key_in(raw)
    if route.secret and len(key) < SECRET_KEY_CHARS_MIN:
        raise _refused(f"this answer shows a secret: take a random key of {SECRET_KEY_CHARS_MIN} characters or more")
    return key


def key_in(raw: Sequence[tuple[bytes, bytes]]) -> str:
    """The key among these headers, which hold one. Raises Invalid."""
    given = [value for name, value in raw if name == KEY_HEADER]
    text = given[0].decode("latin-1")
    if len(given) > 1 or not _KEY.fullmatch(text):
        raise _refused(f"it is one bare word or one quoted string of 1 to {KEY_CHARS_MAX} printable ASCII characters")
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def _refused(reason: str) -> Invalid:
    return Invalid(f"the Idempotency-Key header: {reason}", errors=[fault("", "idempotency-key", reason)])


class Heard:
    """`receive` that digests a body as it passes, whoever reads it and however it is packed."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._body = blake2b(digest_size=_BODY_DIGEST_BYTES)

    async def __call__(self) -> Any:
        """The next message."""
        message = await self._receive()
        self._body.update(message.get("body", b""))
        return message

    def digest(self) -> bytes:
        """The digest of all that was read."""
        return self._body.digest()


def try_of(call: Call, key: str, scope: Any, heard: Heard) -> Try:
    """A try at the request that `call` came from."""
    return call.services.kept.attempt(_scope_of(call.caller), key, _said(scope, call.headers, heard.digest()))


def _scope_of(caller: Caller) -> tuple[str, str, str]:
    """What tells callers apart. An administrator is not the customer of the same name and organisation."""
    return (ADMIN if ADMIN in caller.scopes else "", caller.org_id or "", caller.subject)


def _said(scope: Any, headers: Headers, body: bytes) -> list[bytes]:
    """All of a request that another request under the same key would differ in."""
    told = [b"%b=%b" % pair for pair in sorted(headers.items()) if pair[0] in _REQUEST_HEADERS or pair[0][:3] == b"ce-"]
    return [scope["method"].encode(), scope["path"].encode(), scope["query_string"], body, *told]


async def run(handler: Handler, call: Call, one: Try, run_s: float = RUN_S) -> Reply:
    """The handler's answer, or the one it gave before (a refusal, too, as a Reply). Raises Problems, among them
    StorageUnavailable for a handler that has not ended after `run_s`.
    """
    kept = call.services.kept
    before = await kept.begin(one)
    if before is not None:
        headers = {**before.headers, "Idempotency-Replayed": "true"}
        return Reply(before.body, before.status, before.kind, headers)
    try:
        reply = await _handled(handler, replace(call, idempotency_key=one.name), run_s)
    except Problem as problem:
        await _settle(kept, one, _refusal(problem))
        raise
    except Exception:
        await _settle(kept, one, None)
        raise
    await _settle(kept, one, _answer(reply))
    return reply


async def _handled(handler: Handler, call: Call, run_s: float) -> Reply:
    """The handler's answer, inside the time that a try may take."""
    try:
        async with asyncio.timeout(run_s) as limit:
            return await handler(call)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise StorageUnavailable(f"not done after {run_s:g} s") from error


def _answer(reply: Reply) -> KeptAnswer | None:
    if reply.status >= _SERVER_FAULT:
        return None
    return KeptAnswer(reply.status, reply.kind, reply.headers, reply.body)


def _refusal(problem: Problem) -> KeptAnswer | None:
    """A refusal as the front is about to send it; None where the same request may succeed later."""
    if problem.retry_after_s is not None or problem.status >= _SERVER_FAULT or problem.status == _TOO_MANY:
        return None
    body = problem_body(problem, log_setup.request_id.get())
    return KeptAnswer(problem.status, PROBLEM, problem.headers, body)


async def _settle(kept: Kept, one: Try, answer: KeptAnswer | None) -> None:
    """Keep the answer, or forget the request. What has run is answered even where keeping fails: then the lease ends
    by itself, and a repeat runs again.
    """
    try:
        await (kept.forget(one) if answer is None else kept.finish(one, answer))
    except Problem as problem:
        log.warning("answer not kept", code=problem.code)
