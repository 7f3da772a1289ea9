"""The state of the service on the wire."""

from typing import Literal

from pydantic import Field

from metering.api.models.fields import Answer


class ServiceStates(Answer):
    """The state of each service this one needs."""

    redis: Literal["healthy", "unhealthy"]
    stripe: Literal["configured", "unreachable", "not_configured"] = Field(
        description="unreachable: the last call to Stripe was not answered, or the key refused. Usage is counted all "
        "the same, and billed later."
    )


class StoreView(Answer):
    """What is known of the store, and what it promises."""

    kind: Literal["external", "embedded", "ephemeral"]
    version: str
    durability: Literal["always", "attested", "lossy"] = Field(
        description="always: acknowledged events are on disk; attested: its operator says so; lossy: they can be lost."
    )
    lossy: bool


class HealthView(Answer):
    """The state of the service. Degraded: it works, but promises less than it should."""

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str = Field(json_schema_extra={"format": "date-time"})
    services: ServiceStates
    stripe: Literal["sandbox", "test", "live", "not_configured"] = Field(
        description="Which Stripe: the service's own stand-in, Stripe's test mode, the one that moves money, or none."
    )
    version: str
    store: StoreView


class Liveness(Answer):
    """The process runs."""

    status: Literal["alive"]


class Readiness(Answer):
    """Whether traffic should come here, and if not, why."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]
