"""One line of JSON on stdout per thing worth telling, with the request's id and without any secret.

Modules ask for `structlog.get_logger()`; the standard library's loggers (uvicorn, asyncio) come through the same
processors. Bodies are never logged. What looks like a secret is masked by the name of its field, by its shape, and
by being one of the values the service was configured with. Fields that name organisations show what `orgs` says.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from metering.clock import Clock, SystemClock
from metering.moments import rfc3339
from metering.org_marks import OrgMarks

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request in hand; every line written while it is set carries it."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace of the request in hand, where requests are traced."""

MASK: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|password|passwd|secret|token|api[_-]?key|jwt|credential|signature", re.IGNORECASE
)

_SECRET_SHAPE: Final = re.compile(
    r"(?P<keep>\bbearer\s+)[^\s\"',;]+"  # what follows the scheme of an Authorization header
    r"|eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JWT: its header always begins so
    r"|\b(?:[sr]k|mk)_(?:live|test)_\w+"  # keys of Stripe and of this service
    r"|\bwhsec_[\w+/=-]+"  # webhook secrets
    r"|(?P<user>\w://[^\s/@:]*:)[^\s@]+(?=@)"  # the password of a URL
    r"|(?P<dsn>\bhttps?://)[0-9a-f]{32}(?=@)",  # the key of a Sentry DSN
    re.IGNORECASE,
)

_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What JSON allows unescaped but a terminal or a log viewer may obey: C1 controls, line ends, bidi marks."""

_DEPTH_MAX: Final = 4
"""Values nested deeper are shown as text: a log line is no data dump, and this bounds the walk."""

_INTEGER_BITS: Final = 64
"""What the JSON writer takes as a number."""

_ORG_FIELDS: Final = ("org", "org_id", "asked", "orgs")
"""Fields that hold the id of an organisation, or several."""

Report = Callable[[EventDict], None]
"""Takes a line of level error or above, as it was told: nothing is masked or named yet, and the exception is one."""

_FOREIGN: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

_SHORTEST_SECRET: Final = 8
"""Configured values shorter than this are not searched for: they would mask half of every line."""


def configure(
    level: str = "INFO",
    *,
    secrets: Iterable[str] = (),
    clock: Clock | None = None,
    orgs: OrgMarks | None = None,
    write: Callable[[str], object] | None = None,
    report: Report | None = None,
) -> None:
    """Send everything logged in this process through one renderer. Repeatable; the last call wins.

    `level` is a name of the standard library (any case); `secrets` are values to mask wherever they appear;
    `orgs` says what lines show of organisations, their ids without it; `write` takes one line with its line end and
    defaults to stdout; `report` is told of errors, also of those that `level` leaves out of the log.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    reporting = [_Reporter(report, threshold)] if report is not None else []
    threshold = min(threshold, logging.ERROR) if report is not None else threshold
    structlog.configure(
        processors=[
            _Stamp(clock or SystemClock()),
            _add_request_id,
            *reporting,
            _Namer(orgs or OrgMarks()),
            structlog.processors.format_exc_info,
            Redactor(secrets),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Out(write),
        cache_logger_on_first_use=False,
    )
    _adopt_foreign(threshold)


class _Stamp:
    """Puts first what every line has: the time (RFC 3339, UTC, ms), the level, the event."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        told = event.pop("event", "")
        return {"timestamp": rfc3339(self._clock.now_ms()), "level": level, "event": told, **event}


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if current := request_id.get():
        event.setdefault("request_id", current)
    if trace := trace_id.get():
        event.setdefault("trace_id", trace)
    return event


class _Reporter:
    """Tells of errors, and lets through what the log is to show."""

    def __init__(self, report: Report, threshold: int) -> None:
        self._report, self._threshold = report, threshold

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        rank = logging.getLevelNamesMapping()[level.upper()]
        if rank >= logging.ERROR:
            self._report(event)
        if rank < self._threshold:
            raise structlog.DropEvent
        return event


class _Namer:
    """Shows organisations as it was said."""

    def __init__(self, orgs: OrgMarks) -> None:
        self._orgs = orgs

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for name in _ORG_FIELDS:
            if name in event:
                self._name(event, name)
        return event

    def _name(self, event: EventDict, field: str) -> None:
        """Show what one field holds, or take it out."""
        value = event.pop(field)
        if isinstance(value, str):
            shown: object = self._orgs(value)
        elif isinstance(value, Iterable):
            shown = [one for each in value if (one := self._orgs(str(each))) is not None]
        else:
            shown = value
        if shown:
            event[field] = shown


class Redactor:
    """Masks secrets in names, shapes and known values, at every depth."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({value for value in secrets if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """The line without secrets."""
        return {self.text(name): self._field(name, value, 0) for name, value in event.items()}

    def _field(self, name: str, value: object, depth: int) -> object:
        return MASK if _SECRET_NAME.search(name) and value else self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if value.bit_length() < _INTEGER_BITS else str(value)
        if depth < _DEPTH_MAX and isinstance(value, Mapping):
            return {self.text(str(name)): self._field(str(name), item, depth + 1) for name, item in value.items()}
        if depth < _DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth + 1) for item in value]
        return self.text(value if isinstance(value, str) else repr(value))

    def text(self, value: str) -> str:
        """`value` with everything that is or looks like a secret masked."""
        if not value.isascii():
            value = value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is not UTF-8
        if self._known is not None:
            value = self._known.sub(MASK, value)
        return _SECRET_SHAPE.sub(lambda m: f"{m['keep'] or m['user'] or m['dsn'] or ''}{MASK}", value)


def _render(_: WrappedLogger, __: str, event: EventDict) -> str:
    """One line. The redactor has left only what JSON can hold."""
    line = orjson.dumps(event).decode()
    return line if line.isascii() and "\x7f" not in line else _UNSAFE.sub(_escaped, line)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class _Out:
    """Where structlog's lines go. stdout is looked up at each call: a test or a parent may replace it."""

    def __init__(self, write: Callable[[str], object] | None) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write one line and hand it on at once: a line in a buffer is lost with the process."""
        if self._write is not None:
            self._write(line + "\n")
            return
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    debug = info = warning = error = critical = exception = msg


class _Bridge(logging.Handler):
    """Hands a record of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; text of an exception goes with it, its frames' values do not."""
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **fields)


def _adopt_foreign(threshold: int) -> None:
    """Make the root logger ours and empty uvicorn's own, which would write in another form.

    uvicorn's access lines are switched off: the service writes its own, with the route and the request's id.
    """
    root = logging.getLogger()
    root.handlers = [*(h for h in root.handlers if not isinstance(h, _Bridge)), _Bridge()]
    root.setLevel(max(threshold, logging.INFO))
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name != "uvicorn.access"
        logger.setLevel(max(threshold, logging.INFO))
