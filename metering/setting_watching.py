"""The settings of what the service tells of itself, and how a setting is declared."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from metering.setting_kinds import Text, Upper

_SLOW_MS_MAX: Final = 600_000


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


class LogOrgs(StrEnum):
    """What the log shows of organisations."""

    HASH = "hash"  # a mark that is the same everywhere in one data set, and says nothing to others
    ID = "id"
    NONE = "none"


def setting(default: Any, about: str, takes: str, **bounds: Any) -> Any:
    """A field with what people need to know of it: what it is for, and what it takes."""
    return Field(default, description=about, json_schema_extra={"takes": takes}, **bounds)


class WatchingSettings(BaseSettings):
    """What the service tells of itself: how much, to whom, and what of whom."""

    log_level: Annotated[LogLevel, Upper] = setting(LogLevel.INFO, "how much is logged", ", ".join(LogLevel))
    log_orgs: LogOrgs = setting(LogOrgs.HASH, "what the log shows of organisations", "hash, id or none")
    log_sample: int = setting(
        1_000, "one in so many counted events has a line in the log; 0: none", "a number, 0 to 1000000",
        ge=0, le=1_000_000,
    )  # fmt: skip
    tracing: bool = setting(
        False, "spans of requests and store calls for OpenTelemetry (extra otel), as its own OTEL_ variables say",
        "true or false",
    )  # fmt: skip
    trace_sample: int = setting(
        100, "one in so many requests that come without a trace is traced", "a number, 1 to 1000000",
        ge=1, le=1_000_000,
    )  # fmt: skip
    sentry_dsn: SecretStr | None = setting(
        None, "errors that nobody foresaw, dead letters and sums that do not hold are told to Sentry (extra sentry)",
        "a DSN, as Sentry shows it",
    )  # fmt: skip
    sentry_environment: Text = setting("production", "what Sentry calls this installation", "a name")
    log_slow_ms: int = setting(
        1_000, "requests that take so many ms or more are told as slow; 0: none", f"a number, 0 to {_SLOW_MS_MAX}",
        ge=0, le=_SLOW_MS_MAX,
    )  # fmt: skip
