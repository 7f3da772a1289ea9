"""What operators ask: health and metrics."""

from typing import Final

from metering.api import ops
from metering.api.models.ops import HealthView, Liveness, Readiness
from metering.api.route import OPEN, Route
from metering.errors import StorageUnavailable, Unauthenticated

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/health", "State of the service", OPEN, "operations", ops.get_health,
        {200: HealthView, 503: HealthView},
    ),
    Route("GET", "/health/live", "The process runs", OPEN, "operations", ops.get_live, {200: Liveness}),
    Route(
        "GET", "/health/ready", "Traffic may come here", OPEN, "operations", ops.get_ready,
        {200: Readiness, 503: Readiness},
    ),
    *(
        Route(
            "GET", path, "Metrics for Prometheus", OPEN, "operations", ops.get_metrics, {200: "text/plain"},
            problems=(Unauthenticated, StorageUnavailable),
            about="METRICS_TOKEN is the bearer token; without one they are open where the server is bound to loopback.",
        )
        for path in ("/metrics/usage", "/metrics")
    ),
)  # fmt: skip
