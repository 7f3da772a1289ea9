"""Who is calling: the Authorization header -> Caller.

Each kind of credential has its verifier behind one `Authenticator`; nothing past this module knows which kind it
was. Verified headers are remembered for a short time by their digest, never by themselves.
"""

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from metering.clock import MS_PER_S, Clock
from metering.errors import Unauthenticated
from metering.names import is_org_id, is_text

ADMIN: Final = "admin"
"""The scope (and role) that holds every other scope and sees every organisation."""

USAGE_WRITE: Final = "usage:write"
USAGE_READ: Final = "usage:read"
BILLING_READ: Final = "billing:read"
BILLING_WRITE: Final = "billing:write"

HEADER_BYTES_MAX: Final = 8 * 1024
"""Longest Authorization header: ten times a rich token. Decoding two MB of base64 takes 100 ms of CPU."""

LEEWAY_S: Final = 10
"""How far the issuer's clock may be from ours; NTP keeps both within one second."""

CACHE_S: Final = 30.0
"""Longest time a verified header is trusted without looking again."""

CACHE_SIZE: Final = 8192
"""Headers remembered by one worker: 2 MB at most. The oldest goes first."""


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
        """Who sent `token`; None where it is of another kind. Raises Unauthenticated where it does not hold."""
        ...


class Authenticator:
    """The header's way to a Caller, over all kinds of credentials, with a cache in front."""

    def __init__(self, verifiers: Sequence[Verifier], clock: Clock) -> None:
        self._verifiers = verifiers
        self._clock = clock
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def remembered(self, header: bytes | None, now_s: float) -> Caller | None:
        """The caller of a header verified lately, else None. `now_s` is the stopwatch's time."""
        if header is None or len(header) > HEADER_BYTES_MAX:
            return None
        entry = self._known.get(hashlib.sha256(header).digest())
        return entry[0] if entry is not None and now_s < entry[1] else None

    async def identify(self, header: bytes | None) -> Caller:
        """The caller of an Authorization header. Raises Unauthenticated."""
        known = self.remembered(header, self._clock.monotonic())
        if known is not None:
            return known
        token = _bearer(header)
        for verifier in self._verifiers:
            if (verified := await verifier.verify(token)) is not None:
                self._remember(header or b"", verified)
                return verified.caller
        raise refused("the token is of no kind known here")

    def forget(self) -> None:
        """Trust nothing verified so far: a credential was withdrawn."""
        self._known.clear()

    def _remember(self, header: bytes, verified: Verified) -> None:
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


class JwtVerifier:
    """JSON Web Tokens signed with one shared secret.

    Required: `exp`; `aud` and `iss` as soon as `audience` and `issuer` are given. Read: `sub`, `org_id`, `scopes`
    or `scope` (list, or one string with spaces) and `roles` (role admin is scope admin).
    """

    ALGORITHMS: Final = ("HS256",)
    TYPES: Final = ("jwt", "at+jwt")

    def __init__(self, secret: str, clock: Clock, *, audience: str | None = None, issuer: str | None = None) -> None:
        self._secret = secret.encode()
        self._clock = clock
        self._audience = audience
        self._issuer = issuer
        # The start-up gate has refused a short secret, or DEBUG has let it pass and said so; once is enough.
        warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
        # Times are checked here against the service's own clock, the rest by the library.
        self._jwt = jwt.PyJWT(
            {
                "require": ["exp"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": audience is not None,
            }
        )

    async def verify(self, token: str) -> Verified | None:
        """Who the token speaks for; None where it has not the three parts of a JWT. Raises Unauthenticated."""
        if token.count(".") != 2:  # noqa: PLR2004 - header.payload.signature
            return None
        claims = self._claims(token)
        expires_ms = self._checked_times(claims)
        return Verified(_caller(claims), expires_ms)

    def _claims(self, token: str) -> Mapping[str, object]:
        try:
            complete = self._jwt.decode_complete(
                token,
                self._secret,
                algorithms=self.ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise refused(_reason(error)) from error
        header = complete["header"]
        if "crit" in header or "b64" in header:
            raise refused("the token's header asks for extensions that are not supported")
        if str(header.get("typ", "JWT")).lower() not in self.TYPES:
            raise refused("the token is of another type than JWT")
        claims: Mapping[str, object] = complete["payload"]
        return claims

    def _checked_times(self, claims: Mapping[str, object]) -> float:
        """The expiry in ms since the epoch. Raises Unauthenticated where one of the three times does not hold."""
        now_s = self._clock.now_ms() / MS_PER_S
        expires_s = _seconds(claims, "exp")
        if expires_s <= now_s - LEEWAY_S:
            raise refused("the token has expired")
        for claim in ("nbf", "iat"):
            if claim in claims and _seconds(claims, claim) > now_s + LEEWAY_S:
                raise refused(f"the token is not valid yet ({claim})")
        return expires_s * MS_PER_S


_REASONS: Final[Mapping[type[Exception], str]] = {
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is from another issuer",
    jwt.InvalidAlgorithmError: "the token is signed with an algorithm that is not allowed",
    jwt.InvalidSignatureError: "the token's signature does not fit",
    jwt.DecodeError: "the token cannot be read",
}


def _reason(error: Exception) -> str:
    """What to tell the caller; the library's own words could repeat parts of the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token lacks the claim {error.claim}"
    kinds = (kind for kind in type(error).__mro__ if kind in _REASONS)
    return _REASONS[next(kinds, jwt.DecodeError)]


def _seconds(claims: Mapping[str, object], claim: str) -> float:
    """A NumericDate of RFC 7519. Raises Unauthenticated for anything but a finite number."""
    value = claims[claim]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(f"the token's {claim} is not a number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise refused(f"the token's {claim} is not a time")
    return seconds


def _caller(claims: Mapping[str, object]) -> Caller:
    """The caller that verified claims describe. Raises Unauthenticated where a claim has the wrong shape."""
    org_id = claims.get("org_id")
    if org_id is not None and not (isinstance(org_id, str) and is_org_id(org_id)):
        raise refused("the token's org_id is not an organisation id")
    scopes = {*_words(claims, "scopes"), *_words(claims, "scope")}
    if ADMIN in _words(claims, "roles"):
        scopes.add(ADMIN)
    subject = str(claims.get("sub") or "unnamed")
    if not is_text(subject):  # it goes into logs and the billing trail
        raise refused("the token's sub is not 1 to 255 printable characters")
    return Caller(subject, org_id, frozenset(scopes))


def _words(claims: Mapping[str, object], claim: str) -> Iterable[str]:
    """A claim that is a list of words or one string of them. Raises Unauthenticated for another shape."""
    value = claims.get(claim)
    if value is None:
        return ()
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise refused(f"the token's {claim} is neither a list of words nor a string of them")
