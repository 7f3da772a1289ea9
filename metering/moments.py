"""How an instant is written and read on the wire (RFC 3339, UTC, to the millisecond), and how long a time is."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SECOND: Final = timedelta(seconds=1)

_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MS
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS
"""What `rfc3339` can write: an offset or a leap second at either end would pass them."""

_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""RFC 3339 date-time. `datetime.fromisoformat` takes much more (week dates, no offset), hence the pattern."""

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,9})([smhd])")


def span_s(text: str) -> int:
    """The seconds in a length of time such as `90s`, `30m`, `24h` or `7d`; `0` needs no unit. Raises ValueError."""
    said = _SPAN.fullmatch("0s" if text.strip() == "0" else text.strip())
    if said is None:
        raise ValueError("a number and a unit (s, m, h, d) are needed, as 24h")
    return int(said[1]) * _UNIT_S[said[2]]


@lru_cache(maxsize=4096)
def rfc3339(at_ms: int) -> str:
    """`at_ms` (ms since the epoch) as `2024-02-01T00:00:00Z`; milliseconds only where they are not zero.

    Cached: the end of a period is written into every answer of that period. Raises OverflowError outside
    the years 1 to 9999.
    """
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    text = moment.isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds")
    return text.removesuffix("+00:00") + "Z"


def parse_ms(text: str) -> int:
    """The ms since the epoch that an RFC 3339 date-time with offset names, cut to whole ms.

    A leap second (`:60`) is the second after it. Raises ValueError with what is wrong, also for an instant that lies
    outside the years 1 to 9999 in UTC: what is taken can be shown again.
    """
    if _TIMESTAMP.fullmatch(text) is None:
        raise ValueError("an RFC 3339 date-time with an offset is needed, as 2024-01-15T10:30:00Z")
    leap = text[17:19] == "60"
    moment = datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper() if leap else text.upper())
    at_ms = (moment - _EPOCH + _SECOND * leap) // _MS
    if not _FIRST_MS <= at_ms <= _LAST_MS:
        raise ValueError("the years 1 to 9999 in UTC are taken")
    return at_ms
