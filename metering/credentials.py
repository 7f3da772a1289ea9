"""Everything that finds out who is calling, put together: kinds of credentials, their keys, and what renews them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from metering.auth import Authenticator, Verifier
from metering.clock import Clock
from metering.jwks import TURN_S, Download, Jwks
from metering.jwts import JwtVerifier, KeySource
from metering.public_keys import KeyFile, UnusableKeysError
from metering.setting_sources import Fault
from metering.settings import Settings, SettingsError
from metering.store.api_keys import USES_S, ApiKeys
from metering.store.keys import Keys
from metering.store.withdrawn import LOOK_S, Withdrawn
from metering.workers import Loop


@dataclass(frozen=True, slots=True)
class Held:
    """What credentials stand on: the store's clients (`quick` asks once), its keys, the clock."""

    quick: Any
    patient: Any
    keys: Keys
    clock: Clock
    fake: bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may ask, and the loops that keep it up to date."""

    auth: Authenticator
    api_keys: ApiKeys
    withdrawn: Withdrawn
    loops: Sequence[Loop]


def key_file(settings: Settings) -> KeyFile | None:
    """The public keys of JWT_PUBLIC_KEY_FILE, or None where it is not set. Raises SettingsError."""
    path = settings.jwt_public_key_file
    try:
        return None if path is None else KeyFile(path)
    except UnusableKeysError as error:
        raise SettingsError((Fault("JWT_PUBLIC_KEY_FILE", str(path), str(error), error.cure),)) from error


async def open_credentials(
    stack: AsyncExitStack, settings: Settings, held: Held, key_file: KeyFile | None
) -> Credentials:
    """Open every kind of credential onto `stack`. What was withdrawn is read, and a JWKS URL asked, before anybody is
    let in. Raises the 503 problems.
    """
    verifiers: list[Verifier] = []  # filled below: what withdraws credentials tells the authenticator, which asks them
    auth = Authenticator(verifiers, held.clock)
    withdrawn = Withdrawn(held.quick, held.patient, held.keys, held.clock, forget=auth.forget, fake=held.fake)
    await withdrawn.open()
    api_keys = ApiKeys(
        held.patient, held.keys, held.clock,
        live=bills(settings), withdrew=withdrawn.withdrew, fake=held.fake,
    )  # fmt: skip
    loops = [Loop("withdrawn", withdrawn.look, LOOK_S), Loop("key uses", api_keys.note_uses, USES_S)]
    sources: list[KeySource] = [] if key_file is None else [key_file]
    if settings.jwt_jwks_url is not None:
        jwks = Jwks(Download(settings.jwt_jwks_url, held.clock), held.clock, on_removed=auth.forget)
        stack.push_async_callback(jwks.close)
        await jwks.refresh()
        sources.append(jwks)
        loops.append(Loop("jwks", jwks.turn, TURN_S))
    jwts = JwtVerifier(
        settings.hs256_secret(), held.clock,
        sources=sources, audience=settings.jwt_audience, issuer=settings.jwt_issuer, denied=withdrawn.denies,
    )  # fmt: skip
    verifiers += (api_keys, jwts)
    return Credentials(auth, api_keys, withdrawn, loops)


def bills(settings: Settings) -> bool:
    """Whether usage counted here may cost somebody money, as far as the settings tell: it says how keys begin."""
    stripe = settings.stripe_secret_key
    return not settings.debug and (stripe is None or "_test_" not in stripe.get_secret_value())
