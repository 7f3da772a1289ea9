"""The sums of the whole data set, as the scripts keep them by partition, and how a pipeline is asked."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from metering.errors import OrgCorrupt
from metering.store.connect import StoreError, problem_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

Client: TypeAlias = "Redis"
"""A client of the store, for parts that hand it on and do not know its library."""

CREDITS: Final = "credits"
INVOICE: Final = "invoice"
"""What is paid for."""

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"

_SALES: Final = frozenset(
    {"orders", "order_value", "refunds", "refund_value", "refunds_failed", "refund_failed_value", "payments"}
)
"""Totals of money; what stands behind the name tells them apart: see Totals."""


def payment_total(kind: str, outcome: str) -> str:
    """The name of the total of payments. Those of credits that succeeded are the orders, which their grants count."""
    return f"payments:{kind}:{outcome}"


@dataclass(slots=True)
class Totals:
    """Sums over all partitions; those of units and events only ever grow.

    `units` by (plan, feature) since ever, under the plan that held when they were counted, also those that corrections
    took out again; `taken_out` are those, by feature; `events` by type of billing event; `plans` organisations by
    plan; `delivered` windows of overage that Stripe took: `new` to it, or `known` to it already; `top` scores of the
    organisations that may be among the highest.

    `sales` by name and what it is of, as it ever was: `orders` of credits and their `order_value` (currency, credits);
    `refunds` of them and their `refund_value`, `refunds_failed` of those and their `refund_failed_value` (currency);
    `payments` (kind, outcome), but for those of credits that succeeded. Values are in minor units.
    """

    units: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken_out: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    plans: Counter[str] = field(default_factory=Counter)
    sales: Counter[tuple[str, ...]] = field(default_factory=Counter)
    orgs: int = 0
    top: dict[str, float] = field(default_factory=dict)

    def add(self, totals: Mapping[bytes, bytes], plans: Mapping[bytes, bytes], orgs: int) -> None:
        """Add one partition."""
        for name, value in totals.items():
            kind, _, rest = name.decode().partition(":")
            if kind == "u":
                plan, _, feature = rest.partition(":")
                self.units[plan, feature] += int(value)
            elif kind == "c":
                self.taken_out[rest] += int(value)
            elif kind == "e":
                self.events[rest] += int(value)
            elif kind == "w":
                self.delivered[rest] += int(value)
            elif kind in _SALES:
                self.sales[kind, *rest.split(":")] += int(value)
        for plan_name, value in plans.items():
            self.plans[plan_name.decode()] += int(value)
        self.orgs += orgs


async def replies_of(pipe: Any, *, spare: bool = False) -> list[Any]:
    """Run a pipeline. Raises the 503 problems; with `spare` a key of the wrong type answers None instead.

    The driver's own check for refusals hides what the server said first, which tells them apart.
    """
    try:
        replies: list[Any] = await pipe.execute(raise_on_error=False)
    except StoreError as error:
        raise problem_of(error) from error
    for at, reply in enumerate(replies):
        if isinstance(reply, Exception):
            problem = problem_of(reply)
            if not spare or not isinstance(problem, OrgCorrupt):
                raise problem from reply
            replies[at] = None
    return replies
