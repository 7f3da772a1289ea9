"""What others tell us: Stripe's events, believed by their signature, kept, and answered before anything is done."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from metering.api.bodies import Headers, Receive, fault, invalid, parse_json, read_body
from metering.api.route import Call, Reply, json_reply
from metering.billing.intake import Taken
from metering.clock import MS_PER_S
from metering.errors import NotFound, SignatureInvalid
from metering.families import UNREADABLE
from metering.setting_kinds import StripeMode
from webhooks.signature import TOLERANCE_S, Verdict, check
from webhooks.stripe_events import MalformedEvent, StripeEvent, event_of

BODY_BYTES_MAX: Final = 512 * 1024
"""Stripe's events have a few KiB; an invoice with hundreds of lines has some hundred."""

_WHY: Final = {
    Verdict.MALFORMED: "the header Stripe-Signature is missing, or not `t=<seconds>,v1=<hex>`",
    Verdict.FORGED: "none of the secrets made this signature of these bytes",
    Verdict.STALE: f"it was signed more than {TOLERANCE_S} s ago",
    Verdict.EARLY: f"it was signed more than {TOLERANCE_S} s ahead of our clock",
}

_CLOCK: Final = frozenset({Verdict.STALE, Verdict.EARLY})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signed:
    """A body as it came, and what signs it."""

    header: bytes
    body: bytes


async def read_signed(listed: Sequence[tuple[bytes, bytes]], headers: Headers, receive: Receive) -> Signed:
    """The request's bytes, whatever type they are said to have: the signature is over them and nothing else.

    Raises TooLarge, RequestTimeout, ClientGone. A header that comes twice is read as one with a comma (RFC 9110, 5.3).
    """
    header = b",".join(value for name, value in listed if name == b"stripe-signature")
    return Signed(header, await read_body(headers, receive, bytes_max=BODY_BYTES_MAX))


async def post_stripe(call: Call) -> Reply:
    """POST /webhooks/stripe. What Stripe sends again is answered as before; what is none of ours is not kept.

    An event of the other mode is answered 200 too: sent again it would still be of the other mode, and an endpoint
    that keeps refusing is switched off by Stripe. Operators hear of it by an error in the log.
    """
    mail = call.services.mail
    if not mail.secrets:
        raise NotFound
    seen = call.services.tallies.webhooks
    event = _believed(call.sent(Signed), mail.secrets, await _moments(call), seen)
    taken = await mail.take(event)
    seen[taken.value] += 1
    ignored = None if taken in (Taken.KEPT, Taken.DUPLICATE) else taken.value
    return json_reply({"received": True, "duplicate": taken is Taken.DUPLICATE, "ignored": ignored})


async def _moments(call: Call) -> list[float]:
    """What time it is, in seconds. The sandbox signs in the time of the data set, which may have been moved."""
    services = call.services
    moments = [services.clock.now_ms() / MS_PER_S]
    if services.stripe_mode is StripeMode.SANDBOX:
        await services.orgs.follow()
        moments.append(services.lookback.now_ms() / MS_PER_S)
    return moments


def _believed(signed: Signed, secrets: Sequence[str], moments: Sequence[float], seen: Counter[str]) -> StripeEvent:
    """The event, whose signature holds. Raises SignatureInvalid, MalformedJson, Invalid, after it counted in `seen`."""
    verdicts = [check(signed.header, signed.body, secrets, moment) for moment in moments]
    verdict = Verdict.GENUINE if Verdict.GENUINE in verdicts else verdicts[0]
    if verdict is not Verdict.GENUINE:
        # A genuine signature of another time means a clock that is wrong, or a replay: somebody has to look.
        tell = log.error if verdict in _CLOCK else log.warning
        seen[verdict.value] += 1
        tell("webhook refused", verdict=verdict.value, size=len(signed.body))
        raise SignatureInvalid(_WHY[verdict])
    value = parse_json(signed.body)
    try:
        return event_of(value)
    except MalformedEvent as error:
        seen[UNREADABLE] += 1
        raise invalid([fault("", "stripe-event", f"no event of Stripe's: {error}")]) from None
