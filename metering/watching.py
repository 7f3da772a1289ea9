"""What the service tells of itself, made as the settings say: lines about requests, and traces."""

from metering.api.access import AccessLog
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
