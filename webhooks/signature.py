"""Signatures of Stripe's webhooks, checked and made. The time is an argument, the body the bytes as they came.

The header is `t=<seconds>,v1=<hex>[,v1=<hex>]`, each v1 an HMAC-SHA256 over `<t>.<body>`; there are several while a
secret is rolled (https://docs.stripe.com/webhooks#verify-manually). Stripe's own library looks at the past alone, and
ends in a TypeError or UnicodeDecodeError for some of what a stranger may send. Here every input has a verdict.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

TOLERANCE_S: Final = 300
"""How far the signed time may be from ours, before or after: five minutes, as Stripe's libraries have it."""

_SECONDS: Final = re.compile(rb"[0-9]{1,12}")
"""A time until the year 33658, so that no number is too long to be read."""


class Verdict(StrEnum):
    """What a signature is worth. Only GENUINE is."""

    GENUINE = "genuine"
    MALFORMED = "malformed"
    """No header of this scheme: one `t` in whole seconds, and a `v1`."""
    FORGED = "forged"
    """None of the secrets made any of the signatures, or the body was changed."""
    STALE = "stale"
    """Signed with one of the secrets, too long ago: a replay, or our clock is ahead."""
    EARLY = "early"
    """Signed with one of the secrets, at a time yet to come: our clock is behind."""


def check(
    header: bytes, body: bytes, secrets: Iterable[str], now_s: float, *, tolerance_s: float = TOLERANCE_S
) -> Verdict:
    """What `header` (the bytes of Stripe-Signature) says of `body`, with any of `secrets` (`whsec_...`) good enough.

    Never raises. Schemes other than v1 are ignored, v0 among them: it is made with no secret.
    """
    signed = _parts(header)
    if signed is None:
        return Verdict.MALFORMED
    time, signatures = signed
    made = [_digest(body, secret, time) for secret in secrets]
    if not any(hmac.compare_digest(ours, theirs) for ours in made for theirs in signatures):
        return Verdict.FORGED
    if now_s - int(time) > tolerance_s:
        return Verdict.STALE
    return Verdict.EARLY if int(time) - now_s > tolerance_s else Verdict.GENUINE


def sign(body: bytes, secrets: Sequence[str], at_s: int) -> str:
    """The header for `body` at `at_s` (seconds), with a v1 for each secret: what Stripe would send."""
    time = b"%d" % at_s
    return ",".join([f"t={at_s}", *(f"v1={_digest(body, secret, time).decode()}" for secret in secrets)])


def _parts(header: bytes) -> tuple[bytes, list[bytes]] | None:
    """The signed time as it stands there, and every v1; None where either is missing or the time is ambiguous."""
    pairs = [part.strip().partition(b"=") for part in header.split(b",")]
    times = [value for name, _, value in pairs if name == b"t"]
    signatures = [value for name, _, value in pairs if name == b"v1"]
    if len(times) != 1 or not signatures or not _SECONDS.fullmatch(times[0]):
        return None
    return times[0], signatures


def _digest(body: bytes, secret: str, time: bytes) -> bytes:
    return hmac.new(secret.encode(), time + b"." + body, hashlib.sha256).hexdigest().encode()
