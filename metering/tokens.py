"""Making tokens: what `metering token` prints and what a start shows. `auth` is the one that checks them."""

import secrets
import warnings
from collections.abc import Sequence
from typing import Final

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from metering.auth import ADMIN, AUDIT, BILLING_READ, BILLING_WRITE, CHECK, KEYS, USAGE_READ, USAGE_WRITE
from metering.clock import MS_PER_S, Clock
from metering.moments import span_s
from metering.names import is_org_id
from metering.settings import Settings

SCOPES: Final = (USAGE_WRITE, USAGE_READ, CHECK, BILLING_READ, BILLING_WRITE, "refunds", AUDIT, KEYS, ADMIN)
"""Every scope there is; `admin` holds all the others and sees every organisation."""

TTL_MAX_S: Final = 366 * 86_400
"""A shared secret cannot take a token back; a year is the longest a lost one may be good for."""


class TokenError(ValueError):
    """A token that is not made. `cure` says what to ask for instead."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


def seconds_of(ttl: str) -> int:
    """A time to live such as 90s, 30m, 1h or 7d in seconds. Raises TokenError."""
    try:
        seconds = span_s(ttl)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= TTL_MAX_S:
        raise TokenError(
            f"'{ttl}' is no time to live", "Give a number and a unit (s, m, h, d) up to 366d, for example 1h."
        )
    return seconds


def mint(settings: Settings, clock: Clock, *, org: str, scopes: Sequence[str], ttl_s: int) -> str:
    """A JWT for `org` with `scopes`, signed with the secret in force (HS256). Raises TokenError."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise TokenError(f"no such scope: {', '.join(unknown) or '(none given)'}", f"Scopes: {' '.join(SCOPES)}.")
    if not is_org_id(org):
        raise TokenError(
            f"'{org}' cannot name an organisation",
            "Use 1 to 64 letters, digits, '_', '.' or '-', a letter or digit first.",
        )
    now_s = clock.now_ms() // MS_PER_S
    claims = {
        "sub": "metering-token",
        "org_id": org,
        "scopes": list(dict.fromkeys(scopes)),
        "iat": now_s,
        "exp": now_s + ttl_s,
        "jti": secrets.token_hex(8),
    }
    named = {"aud": settings.jwt_audience, "iss": settings.jwt_issuer}
    claims |= {name: value for name, value in named.items() if value}
    with warnings.catch_warnings():
        # The start-up gate refuses a short secret or, under DEBUG, lets it pass and says so.
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")
