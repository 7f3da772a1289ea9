"""Everything that finds out who is calling, put together: kinds of credentials, their keys, and what renews them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from metering.auth import Authenticator, Verifier
from metering.clock import Clock
from metering.jwks import TURN_S, Download, Jwks
from metering.jwts import JwtVerifier, KeySource
from metering.public_keys import KeyFile, UnusableKeysError
from metering.setting_sources import Fault
from metering.settings import Settings, SettingsError
from metering.workers import Loop


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may ask, and the loops that keep it up to date."""

    auth: Authenticator
    loops: Sequence[Loop]


def key_file(settings: Settings) -> KeyFile | None:
    """The public keys of JWT_PUBLIC_KEY_FILE, or None where it is not set. Raises SettingsError."""
    path = settings.jwt_public_key_file
    try:
        return None if path is None else KeyFile(path)
    except UnusableKeysError as error:
        raise SettingsError((Fault("JWT_PUBLIC_KEY_FILE", str(path), str(error), error.cure),)) from error


async def open_credentials(
    stack: AsyncExitStack, settings: Settings, clock: Clock, keys: KeyFile | None
) -> Credentials:
    """Open every kind of credential onto `stack`. A JWKS URL is asked once before anybody is let in."""
    verifiers: list[Verifier] = []  # filled below: they need the keys, which tell the authenticator of their changes
    auth = Authenticator(verifiers, clock)
    loops: list[Loop] = []
    sources: list[KeySource] = [] if keys is None else [keys]
    if settings.jwt_jwks_url is not None:
        jwks = Jwks(Download(settings.jwt_jwks_url, clock), clock, on_removed=auth.forget)
        stack.push_async_callback(jwks.close)
        await jwks.refresh()
        sources.append(jwks)
        loops.append(Loop("jwks", jwks.turn, TURN_S))
    secret, audience, issuer = settings.hs256_secret(), settings.jwt_audience, settings.jwt_issuer
    verifiers.append(JwtVerifier(secret, clock, sources=sources, audience=audience, issuer=issuer))
    return Credentials(auth, loops)
