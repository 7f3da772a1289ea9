"""What the answers of Stripe tell beside their objects: its clock, when to come back, and what went wrong."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from metering.clock import MS_PER_S, Clock

_MESSAGE_MAX: Final = 300
"""Enough for every text of Stripe's that names a parameter and an id; a page of HTML is cut."""

RETRY_AFTER_MAX_S: Final = 3600.0
"""Stripe's limits count by the second; who asks for more than an hour made a slip, and would stop billing for years."""

_SECRET: Final = re.compile(r"\b(?:[srp]k|whsec)_[\w*]+")


class StripeClock:
    """Stripe's clock, learned from the `Date` of its answers and carried on with the stopwatch of this process.

    `Date` is cut to the second, so this clock is up to a second and one way of the network behind: a timestamp taken
    from it is never in Stripe's future.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lead_ms: int | None = None

    def note(self, headers: Mapping[str, str]) -> None:
        """Learn from the headers of an answer. One without a readable `Date` teaches nothing."""
        at = _moment(headers.get("Date", ""))
        if at is not None:
            self._lead_ms = int(at.timestamp()) * MS_PER_S - self._elapsed_ms()

    def now_ms(self) -> int | None:
        """Stripe's time in ms since the epoch; None before the first answer."""
        return None if self._lead_ms is None else self._lead_ms + self._elapsed_ms()

    def _elapsed_ms(self) -> int:
        return int(self._clock.monotonic() * MS_PER_S)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks to wait (RFC 9110 10.2.3: a number, or a date), RETRY_AFTER_MAX_S at most; None
    where it says nothing.
    """
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return _until(text, headers)
    return min(seconds, RETRY_AFTER_MAX_S) if math.isfinite(seconds) and seconds >= 0 else None


def _until(text: str, headers: Mapping[str, str]) -> float | None:
    """Seconds from the answer's own `Date` to the date in `text`: no clock of ours is asked."""
    end, start = _moment(text), _moment(headers.get("Date", ""))
    return min(max(0.0, (end - start).total_seconds()), RETRY_AFTER_MAX_S) if end and start else None


def _moment(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter: a year beyond all integers of C
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def error_of(body: Any) -> Mapping[str, Any]:
    """The `error` object in a parsed answer; empty where there is none (https://docs.stripe.com/api/errors)."""
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def tells_an_error(body: bytes) -> bool:
    """Whether Stripe itself says what went wrong. A proxy on the way answers with HTML, or with JSON of its own."""
    return bool(error_of(_parsed(body)))


def is_object(body: bytes) -> bool:
    """Whether the body is a JSON object, as every answer of Stripe that says yes."""
    return isinstance(_parsed(body), dict)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def shortened(message: str) -> str:
    """The text of an error, fit for logs and trails: one line, bounded, and no key in it."""
    return " ".join(_SECRET.sub("[redacted]", message).split())[:_MESSAGE_MAX]
