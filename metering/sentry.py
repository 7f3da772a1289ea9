"""Errors for Sentry: what nobody foresaw, what was given up, sums that do not hold. Nothing else, and nobody's data.

The one module that imports its SDK (the extra `sentry`), and itself imported with SENTRY_DSN alone. The SDK's own
integrations stay off: they would send requests, breadcrumbs and values of variables. What an exception says in words
may be what a customer sent, so it stays in the log, where the same `request_id` finds it; its type and where it was
raised are sent.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog
from sentry_sdk import Client
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import event_from_exception

from metering.log import Redactor
from metering.org_marks import OrgMarks

TOLD: Final = frozenset(
    {"conservation violated", "overage not billed", "queued event given up", "stripe event given up"}
)
"""Lines of the log that are sent although no exception is behind them: dead letters, and sums that do not hold."""

TAGS: Final = ("request_id", "trace_id", "route", "loop", "law", "window", "stripe_event", "type", "partition", "entry")
"""Fields of a line that go along: names and ids of ours, of Stripe's events, and of routes."""

CLOSE_S: Final = 2.0
"""For what is left to leave: the service ends within 15 s, also where nobody takes it."""

PER_MINUTE: Final = 60
"""Events of one worker: a fault that every request meets is one fault, and each event costs about a millisecond."""

log = structlog.get_logger(__name__)

_MINUTE_S: Final = 60.0
_SENT: Final = "_told_to_sentry"
"""The attribute of an exception that was sent."""

_UNFORESEEN: Final = {"type": "log", "handled": False}
_KEPT: Final = "see the log"


class SentryReports:
    """Reports of one worker. They leave in a thread; what does not fit its queue of 100 is dropped. `close` ends it.

    `secrets` are masked wherever they stand, `orgs` says how organisations are named. Raises ValueError for a `dsn`
    that is none.
    """

    def __init__(
        self,
        dsn: str,
        *,
        release: str,
        environment: str,
        secrets: Iterable[str],
        orgs: OrgMarks,
        monotonic: Callable[[], float],
    ) -> None:
        self._redactor, self._orgs, self._monotonic = Redactor(secrets), orgs, monotonic
        self._since_s, self._sent = monotonic(), 0
        self._client = Client(
            dsn=dsn,
            release=release,
            environment=environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            enable_backpressure_handling=False,
            auto_session_tracking=False,
            send_client_reports=False,
            max_breadcrumbs=0,
            spotlight=False,
            before_send=self._scrubbed,
        )

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Send what a line of the log tells, where it is worth it. Never raises, never waits."""
        try:
            error = _error_of(line.get("exc_info"))
            if (error is not None or line["event"] in TOLD) and self._worth(error):
                self._send(line, error)
        except Exception as fault:  # noqa: BLE001 - whoever tells of faults must not make one of them
            log.warning("report not sent", why=repr(fault))

    def close(self) -> None:
        """Send what is left, and end. Blocks, for CLOSE_S where nobody takes it."""
        self._client.close(timeout=CLOSE_S)

    def _worth(self, error: BaseException | None) -> bool:
        """Whether it was not sent before, as the server tells an exception that a handler told already, and fits."""
        if error is not None:
            if getattr(error, _SENT, False):
                return False
            setattr(error, _SENT, True)
        now_s = self._monotonic()
        if now_s - self._since_s >= _MINUTE_S:
            self._since_s, self._sent = now_s, 0
        self._sent += 1
        return self._sent <= PER_MINUTE

    def _send(self, line: Mapping[str, Any], error: BaseException | None) -> None:
        event: Event = {}
        hint: Hint = {}
        if error is not None:
            event, hint = event_from_exception(error, self._client.options, _UNFORESEEN)
            for value in event["exception"]["values"]:
                value["value"] = _KEPT
        tags = {name: str(line[name]) for name in TAGS if name in line}
        org = self._orgs.abroad(line["org"]) if isinstance(line.get("org"), str) else None
        event |= {
            "level": "error",
            "logger": "metering",
            "logentry": {"message": line["event"]},
            "tags": tags if org is None else {**tags, "org": org},
        }
        self._client.capture_event(event, hint)

    def _scrubbed(self, event: Event, _: Hint) -> Event:
        """The last look at what leaves: every text without what is or looks like a secret."""
        clean: Event = self._clean(event)
        return clean

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, Mapping):
            return {name: self._clean(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        return value


def _error_of(given: object) -> BaseException | None:
    """The exception of a line, however it was handed to the log."""
    if given is True:
        return sys.exception()
    found = given[1] if isinstance(given, tuple) else given
    return found if isinstance(found, BaseException) else None
