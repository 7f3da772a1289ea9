"""What Stripe says of usage that it took and could not bill: thin events alone carry it.

https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#handle-errors
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from metering.billing.gateway import StripeObject
from metering.clock import MS_PER_S


@dataclass(frozen=True, slots=True)
class MeterReport:
    """One report. `counts` by error code; `samples` are some of the refused identifiers and their code, never all.

    The span in ms is the one that Stripe looked through; 0 where the report does not say.
    """

    meter: str
    counts: Mapping[str, int]
    samples: Mapping[str, str]
    start_ms: int
    end_ms: int


def report_of(event: StripeObject) -> MeterReport:
    """The report of a thin event as `/v2/core/events` tells it, its data included."""
    data: Mapping[str, Any] = event.get("data") or {}
    kinds = (data.get("reason") or {}).get("error_types") or []
    samples = {
        sample["request"]["identifier"]: str(kind.get("code", ""))
        for kind in kinds
        for sample in kind.get("sample_errors") or []
        if (sample.get("request") or {}).get("identifier")
    }
    return MeterReport(
        meter=str((event.get("related_object") or {}).get("id") or ""),
        counts={str(kind.get("code", "")): int(kind.get("error_count", 0)) for kind in kinds},
        samples=samples,
        start_ms=_ms(data.get("validation_start")),
        end_ms=_ms(data.get("validation_end")),
    )


def _ms(text: Any) -> int:
    return int(datetime.fromisoformat(text).timestamp() * MS_PER_S) if isinstance(text, str) else 0
