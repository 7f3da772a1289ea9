"""What the service tells of itself, made as the settings say: lines about requests, traces, reports of errors."""

from collections.abc import Iterable

from metering.api.access import AccessLog
from metering.clock import Clock
from metering.log import MASK
from metering.org_marks import OrgMarks
from metering.reports import Reports
from metering.setting_sources import Fault
from metering.setting_watching import LogLevel
from metering.settings import Settings, SettingsError
from metering.traces import Traces


def access_of(settings: Settings) -> AccessLog:
    """Which requests the log tells of."""
    every = settings.log_level is LogLevel.DEBUG
    return AccessLog(slow_ms=settings.log_slow_ms, every=settings.log_sample, all_of_them=every)


def traces_of(settings: Settings, release: str) -> Traces | None:
    """Where spans go; None where nothing is traced. Raises SettingsError where what it takes is not installed."""
    if not settings.tracing:
        return None
    try:
        from metering.otel import OtelTraces  # noqa: PLC0415 - its time and memory are for those who trace
    except ImportError as error:
        cure = "pip install 'usage-metering[otel]', or leave TRACING out."
        fault = Fault("TRACING", "true", f"OpenTelemetry is not installed ({error.name})", cure)
        raise SettingsError((fault,)) from error
    return OtelTraces(release, one_in=settings.trace_sample)


def reports_of(
    settings: Settings, release: str, *, secrets: Iterable[str], orgs: OrgMarks, clock: Clock
) -> Reports | None:
    """Who is told of errors; None where nobody is. Raises SettingsError: the SDK is not installed, the DSN is none."""
    if settings.sentry_dsn is None:
        return None
    try:
        from metering.sentry import SentryReports  # noqa: PLC0415 - its time and memory are for those who report

        return SentryReports(
            settings.sentry_dsn.get_secret_value(),
            release=release,
            environment=settings.sentry_environment,
            secrets=secrets,
            orgs=orgs,
            monotonic=clock.monotonic,
        )
    except ImportError as error:
        reason = f"Sentry's SDK is not installed ({error.name})"
        cure = "pip install 'usage-metering[sentry]', or leave SENTRY_DSN out."
        raise SettingsError((Fault("SENTRY_DSN", MASK, reason, cure),)) from error
    except ValueError as error:
        cure = "Copy it from the project's settings (Client Keys) at Sentry: https://KEY@HOST/PROJECT"
        raise SettingsError((Fault("SENTRY_DSN", MASK, "it is no DSN", cure),)) from error
