"""Which tokens hold, and for how long they are believed."""

import asyncio
import base64
import hmac
import json
import math
import time
from typing import Any, Final

import jwt
import pytest
from pydantic import SecretStr

from metering.auth import (
    ADMIN,
    CACHE_S,
    CACHE_SIZE,
    HEADER_BYTES_MAX,
    USAGE_READ,
    USAGE_WRITE,
    Authenticator,
    Caller,
    Verified,
)
from metering.clock import HandClock, SystemClock
from metering.errors import Unauthenticated
from metering.jwts import LEEWAY_S, JwtVerifier
from metering.settings import JWT_SECRET_DEFAULT, Settings
from metering.tokens import mint
from tests.service.running import SECRET, Running, problem, token

NOW_MS: Final = 1_700_000_000_000
NOW_S: Final = NOW_MS // 1000
AUDIENCE, ISSUER = "metering", "https://issuer.example"

GOOD: Final[dict[str, Any]] = {
    "sub": "svc",
    "org_id": "org-1",
    "scopes": [USAGE_READ],
    "exp": NOW_S + 600,
    "iat": NOW_S,
    "aud": AUDIENCE,
    "iss": ISSUER,
}


def signed(
    changes: dict[str, Any] | None = None,
    *,
    key: str = SECRET,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
    drop: str = "",
) -> str:
    claims = {name: value for name, value in (GOOD | (changes or {})).items() if name != drop}
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


def raw(header: dict[str, Any], claims: object, signature: bytes = b"") -> str:
    """A token put together by hand; what the library would not make."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def by_hand(header: dict[str, Any], claims: object) -> str:
    """The same, properly signed."""
    text = raw(header, claims).rpartition(".")[0]
    digest = hmac.digest(SECRET.encode(), text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def tampered() -> str:
    head, _, tail = signed().split(".")
    return f"{head}.{raw({}, GOOD | {'org_id': 'org-2'}).split('.')[1]}.{tail}"


def unpadded_twist() -> str:
    """The same signature with other unused bits in its last letter."""
    text = signed()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) ^ 1]


REFUSED: Final = {
    "alg none": raw({"alg": "none", "typ": "JWT"}, GOOD),
    "alg None": raw({"alg": "None", "typ": "JWT"}, GOOD),
    "no alg": raw({"typ": "JWT"}, GOOD),
    "HS512": signed(algorithm="HS512"),
    "HS384": signed(algorithm="HS384"),
    "another key": signed(key="another-secret-of-more-than-32-bytes!!"),
    "no signature": signed().rsplit(".", 1)[0] + ".",
    "claims swapped": tampered(),
    "signature twisted": unpadded_twist(),
    "no exp": signed(drop="exp"),
    "expired": signed({"exp": NOW_S - LEEWAY_S}),
    "exp as text": raw({"alg": "HS256"}, GOOD | {"exp": "soon"}),
    "exp true": signed({"exp": True}),
    "exp infinite": signed({"exp": float("inf")}),
    "iat in the future": signed({"iat": NOW_S + LEEWAY_S + 1}),
    "nbf in the future": signed({"nbf": NOW_S + LEEWAY_S + 1}),
    "wrong aud": signed({"aud": "other"}),
    "no aud": signed(drop="aud"),
    "wrong iss": signed({"iss": "https://evil.example"}),
    "no iss": signed(drop="iss"),
    "crit": signed(header={"crit": ["exp"]}),
    "crit known to the library": by_hand({"alg": "HS256", "crit": ["b64"], "b64": True}, GOOD),
    "detached": signed(header={"b64": False}),
    "typ of another kind": signed(header={"typ": "dpop+jwt"}),
    "org_id with a colon": signed({"org_id": "a:b"}),
    "org_id of a reserved word": signed({"org_id": "track"}),
    "org_id a number": signed({"org_id": 7}),
    "scopes a number": signed({"scopes": 7}),
    "roles of numbers": signed({"roles": [1]}),
    "claims a list": jwt.api_jws.encode(b"[]", SECRET),
    "two parts": "a.b",
    "four parts": "a.b.c.d",
    "an API key": "mk_live_abc",
}


def authenticator(clock: HandClock, **options: Any) -> Authenticator:
    named = {"audience": AUDIENCE, "issuer": ISSUER} | options
    return Authenticator([JwtVerifier(SECRET, clock, **named)], clock)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
async def test_a_token_that_does_not_hold_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated) as told:
        await authenticator(HandClock(NOW_MS)).identify(f"Bearer {text}".encode())
    assert "Bearer" in told.value.headers["WWW-Authenticate"]
    assert text[:20] not in str(told.value.members("r"))


ACCEPTED: Final = {
    "by hand": (by_hand({"alg": "HS256"}, GOOD), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "plain": (signed(), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "expired within the leeway": (
        signed({"exp": NOW_S - LEEWAY_S + 1}),
        Caller("svc", "org-1", frozenset({USAGE_READ})),
    ),
    "iat within the leeway": (signed({"iat": NOW_S + LEEWAY_S}), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "fractional exp": (signed({"exp": NOW_S + 0.5}), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "aud among others": (signed({"aud": ["x", AUDIENCE]}), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "scope as one string": (
        signed({"scope": "usage:write check"}, drop="scopes"),
        Caller("svc", "org-1", frozenset({USAGE_WRITE, "check"})),
    ),
    "scopes as one string": (signed({"scopes": "a b"}), Caller("svc", "org-1", frozenset({"a", "b"}))),
    "role admin": (signed({"roles": ["admin"], "scopes": []}), Caller("svc", "org-1", frozenset({ADMIN}))),
    "another role": (signed({"roles": ["viewer"], "scopes": []}), Caller("svc", "org-1", frozenset())),
    "no org": (signed(drop="org_id"), Caller("svc", None, frozenset({USAGE_READ}))),
    "no sub": (signed(drop="sub"), Caller("unnamed", "org-1", frozenset({USAGE_READ}))),
    "no typ": (signed(header={"typ": None}), Caller("svc", "org-1", frozenset({USAGE_READ}))),
    "typ at+jwt": (signed(header={"typ": "at+jwt"}), Caller("svc", "org-1", frozenset({USAGE_READ}))),
}


@pytest.mark.parametrize(("text", "caller"), ACCEPTED.values(), ids=ACCEPTED)
async def test_a_token_that_holds_names_its_caller(text: str, caller: Caller) -> None:
    assert await authenticator(HandClock(NOW_MS)).identify(f"Bearer {text}".encode()) == caller


async def test_aud_and_iss_are_not_asked_for_until_they_are_configured() -> None:
    lax = authenticator(HandClock(NOW_MS), audience=None, issuer=None)
    for text in (signed(), signed(drop="aud"), signed(drop="iss")):
        assert (await lax.identify(f"Bearer {text}".encode())).org_id == "org-1"


HEADERS: Final = {
    "missing": None,
    "empty": b"",
    "basic": b"Basic dXNlcjpwYXNz",
    "no token": b"Bearer ",
    "two tokens": b"Bearer a.b.c a.b.c",
    "no scheme": signed().encode(),
    "not ASCII": b"Bearer \xe9.b.c",
    "longer than 8 KiB": b"Bearer " + b"a" * HEADER_BYTES_MAX,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
async def test_a_header_that_is_no_bearer_token_is_refused(header: bytes | None) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator(HandClock(NOW_MS)).identify(header)


async def test_the_scheme_may_be_written_in_any_case() -> None:
    assert (await authenticator(HandClock(NOW_MS)).identify(f"bEaReR {signed()}".encode())).subject == "svc"


async def test_two_megabytes_of_token_are_not_even_decoded() -> None:
    began = time.process_time()
    with pytest.raises(Unauthenticated):
        await authenticator(HandClock(NOW_MS)).identify(b"Bearer " + b"YWFh" * 500_000 + b".YQ.YQ")
    assert time.process_time() - began < 0.02


class Counting:
    """A verifier that says yes and counts."""

    def __init__(self, clock: HandClock, lasts_ms: int) -> None:
        self.asked = 0
        self._clock = clock
        self._lasts_ms = lasts_ms

    async def verify(self, text: str) -> Verified | None:
        self.asked += 1
        return Verified(Caller(text, None, frozenset()), self._clock.now_ms() + self._lasts_ms)


@pytest.mark.parametrize(("lasts_s", "believed_s"), [(600, int(CACHE_S)), (5, 5)])
async def test_a_verified_token_is_believed_for_a_while_and_never_past_its_end(lasts_s: int, believed_s: int) -> None:
    clock = HandClock(NOW_MS)
    verifier = Counting(clock, lasts_s * 1000)
    auth = Authenticator([verifier], clock)
    await auth.identify(b"Bearer a")
    clock.advance(believed_s * 1000 - 1)
    await auth.identify(b"Bearer a")
    assert verifier.asked == 1
    clock.advance(1)
    await auth.identify(b"Bearer a")
    assert verifier.asked == 2


async def test_a_withdrawn_credential_is_forgotten_at_once() -> None:
    clock = HandClock(NOW_MS)
    verifier = Counting(clock, 600_000)
    auth = Authenticator([verifier], clock)
    await auth.identify(b"Bearer a")
    auth.forget()
    await auth.identify(b"Bearer a")
    assert verifier.asked == 2


class Slow:
    """Takes everything, when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def verify(self, text: str) -> Verified | None:
        self.asked += 1
        await self.go.wait()
        return Verified(Caller(text, None, frozenset()), math.inf)


async def test_what_was_being_verified_while_a_credential_was_withdrawn_is_not_remembered() -> None:
    verifier = Slow()
    auth = Authenticator([verifier], HandClock(NOW_MS))
    asked = asyncio.create_task(auth.identify(b"Bearer a"))
    await asyncio.sleep(0)
    auth.forget()
    verifier.go.set()
    assert (await asked).subject == "a"
    await auth.identify(b"Bearer a")
    assert verifier.asked == 2
    await auth.identify(b"Bearer a")
    assert verifier.asked == 2


@pytest.mark.parametrize(
    ("header", "asked"), [(b"bearer a", 1), (b"BEARER a", 1), (b"Bearer  a", 2), (b"Bearer a ", 2)]
)
async def test_one_token_does_not_fill_the_cache_in_many_spellings(header: bytes, asked: int) -> None:
    clock = HandClock(NOW_MS)
    verifier = Counting(clock, 600_000)
    auth = Authenticator([verifier], clock)
    assert [(await auth.identify(header)).subject for _ in range(2)] == ["a", "a"]
    assert verifier.asked == asked


async def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    clock = HandClock(NOW_MS)
    verifier = Counting(clock, 600_000)
    auth = Authenticator([verifier], clock)
    for number in range(CACHE_SIZE + 1):
        await auth.identify(b"Bearer %d" % number)
    assert auth.remembered(b"Bearer 0", clock.monotonic()) is None
    assert auth.remembered(b"Bearer 1", clock.monotonic()) is not None


async def test_a_refused_token_is_not_remembered() -> None:
    clock = HandClock(NOW_MS)
    auth = authenticator(clock)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await auth.identify(f"Bearer {tampered()}".encode())


def test_a_scope_gives_itself_and_admin_gives_all() -> None:
    writer = Caller("a", "org-1", frozenset({USAGE_WRITE}))
    admin = Caller("a", "org-1", frozenset({ADMIN}))
    assert (writer.may(USAGE_WRITE), writer.may(USAGE_READ), writer.may(ADMIN)) == (True, False, False)
    assert (writer.sees("org-1"), writer.sees("ORG-1"), writer.sees("org-2")) == (True, False, False)
    assert (admin.may("refunds"), admin.sees("org-2")) == (True, True)


@pytest.mark.parametrize("path", ["/usage/track", "/billing/update"])
@pytest.mark.parametrize(
    "header", [None, "Basic eDp5", "Bearer x.y.z", "Bearer " + "a" * 9000, "Bearer " + "a" * 60_000]
)
def test_over_http_a_bad_header_is_401_and_writes_nothing(service: Running, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with service.unchanged():
        response = service.call("POST", path, headers=headers, json={"org_id": "a", "feature": "scans"})
        problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_expired_token_is_401_over_http(service: Running, org: str) -> None:
    stale = token(org, exp=int(time.time()) - 60)
    assert "expired" in problem(service.track(stale, feature="scans"), 401, "unauthenticated")["detail"]


def test_the_documented_secret_works_where_debug_lets_it_pass(org: str) -> None:
    with Running(jwt_secret=JWT_SECRET_DEFAULT) as lax:
        weak = Settings(jwt_secret=SecretStr(JWT_SECRET_DEFAULT))
        bearer = mint(weak, SystemClock(), org=org, scopes=(ADMIN,), ttl_s=60)
        assert lax.track(bearer, feature="scans").status_code == 200
        problem(lax.track(token(org), feature="scans"), 401, "unauthenticated")
