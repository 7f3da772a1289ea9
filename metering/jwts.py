"""JSON Web Tokens -> Caller: signed with one shared secret, or with the private half of a key that is known here."""

import base64
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import jwt
import orjson
from jwt.warnings import InsecureKeyLengthWarning

from metering.auth import ADMIN, Caller, Verified, refused
from metering.clock import MS_PER_S, Clock
from metering.names import is_org_id, is_text
from metering.public_keys import ALGORITHMS, PublicKey

HS256: Final = "HS256"

LEEWAY_S: Final = 10
"""How far the issuer's clock may be from ours; NTP keeps both within one second."""

TRIES_MAX: Final = 8
"""Keys tried for one token. A token that names its key (`kid`) has one candidate, as a rule; one that does not is
tried against several, and each costs up to 0.1 ms before anybody is known to ask."""


class KeySource(Protocol):
    """Where public keys come from."""

    def known(self, algorithm: str, kid: str | None) -> Sequence[PublicKey]:
        """The keys that may have signed a token with this algorithm and key id."""
        ...

    async def learn(self, kid: str | None) -> bool:
        """Look for keys anew where `kid` is not known; whether `known` may answer otherwise now.

        Raises KeysUnavailable where it cannot be found out whether there is such a key.
        """
        ...


class JwtVerifier:
    """JSON Web Tokens, signed with `secret` (None: HS256 is off) or by a key of `sources`.

    A token's `alg` only says where to look: each key is used with the one algorithm of its type, and the secret with
    HS256. Required: `exp`; `aud` and `iss` as soon as `audience` and `issuer` are given. Read: `sub`, `org_id`,
    `scopes` or `scope` (list, or one string with spaces), `roles` (role admin is scope admin) and `jti`, which
    `denied` may have been told of. Keys and addresses of keys inside a token (`jwk`, `jku`, `x5u`) are not read.
    """

    TYPES: Final = ("jwt", "at+jwt")

    def __init__(
        self,
        secret: str | None,
        clock: Clock,
        *,
        sources: Sequence[KeySource] = (),
        audience: str | None = None,
        issuer: str | None = None,
        denied: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._secret = None if secret is None else secret.encode()
        self._sources = sources
        self._denied = denied
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
        """Who the token speaks for; None where it has not the three parts of a JWT.

        Raises Unauthenticated; KeysUnavailable where the token's key cannot be looked up.
        """
        if token.count(".") != 2:  # noqa: PLR2004 - header.payload.signature
            return None
        try:
            claims = await self._claims(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise refused(_reason(error)) from error
        expires_ms = self._checked_times(claims)
        if self._denied(str(claims.get("jti", ""))):
            raise refused("the token was withdrawn")
        return Verified(_caller(claims), expires_ms)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token whose signature holds. Raises PyJWTError, ValueError, Unauthenticated."""
        algorithm, kid = _said(token)
        if algorithm == HS256 and self._secret is not None:
            return self._decoded(token, self._secret, HS256)
        if algorithm not in ALGORITHMS or not self._sources:
            raise jwt.InvalidAlgorithmError
        claims = self._tried(token, algorithm, kid)
        if claims is None and await self._learnt(kid):
            claims = self._tried(token, algorithm, kid)
        if claims is None:
            raise refused("the token is signed with no key that is known here")
        return claims

    def _tried(self, token: str, algorithm: str, kid: str | None) -> Mapping[str, Any] | None:
        """The claims, where one of the keys that are known has signed them."""
        for key in islice(self._candidates(algorithm, kid), TRIES_MAX):
            try:
                return self._decoded(token, key.key, key.algorithm)
            except jwt.InvalidSignatureError:
                continue
        return None

    def _candidates(self, algorithm: str, kid: str | None) -> Iterator[PublicKey]:
        for source in self._sources:
            yield from source.known(algorithm, kid)

    async def _learnt(self, kid: str | None) -> bool:
        return any([await source.learn(kid) for source in self._sources])

    def _decoded(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        complete = self._jwt.decode_complete(
            token, key, algorithms=(algorithm,), audience=self._audience, issuer=self._issuer
        )
        header = complete["header"]
        if "crit" in header or "b64" in header:
            raise refused("the token's header asks for extensions that are not supported")
        if str(header.get("typ", "JWT")).lower() not in self.TYPES:
            raise refused("the token is of another type than JWT")
        claims: Mapping[str, Any] = complete["payload"]
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


def _said(token: str) -> tuple[object, str | None]:
    """What a token's header says of its signature: algorithm and key id. Only for looking up: nothing of it is checked.

    Raises ValueError where it cannot be read. (The library's own reader decodes and checks all of the token for it.)
    """
    head = token.partition(".")[0]
    header = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    if not isinstance(header, dict):
        raise jwt.DecodeError
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise jwt.DecodeError
    return header.get("alg"), kid


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
