"""Where the running period will end: usage, overage and its price, forecast from history."""

from collections.abc import Mapping
from typing import Any, Final

from metering.api.models.outlook import ProjectionQuery
from metering.api.prices import PriceList, bill_view, price_view
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found, span
from metering.moments import rfc3339
from metering.store.org import FeatureUsage, Org
from plans.catalogue import Catalogue
from plans.forecast import RECENT_MS, Forecast, Outlook, Seen, forecast, outlook, reached_ms
from plans.periods import Period
from plans.windows import HOUR_MS

ENDS: Final = ("low", "expected", "high")


async def get_projection(call: Call) -> Reply:
    """The projection of one organisation."""
    org = await found(call, call.asked(ProjectionQuery).org_id)
    seen = await seen_of(call, org)
    return json_reply(projection_view(org, call.services.catalogue, seen))


async def seen_of(call: Call, org: Org) -> dict[str, Seen]:
    """What is known of each feature now: the period so far, and the last seven days (less, of a young organisation)."""
    lookback = call.services.lookback
    now_ms = max(lookback.now_ms(), org.period.start_ms)
    week_ms = now_ms // HOUR_MS * HOUR_MS - RECENT_MS
    since_ms = max(week_ms, org.profile.created_ms)
    recent = Period(since_ms // HOUR_MS * HOUR_MS, now_ms + HOUR_MS)
    units = await lookback.units(org.org_id, tuple(org.features), recent)
    return {
        name: Seen(usage.used, org.period, now_ms, units[name], max(0, now_ms - since_ms))
        for name, usage in org.features.items()
    }


def projection_view(org: Org, catalogue: Catalogue, seen: Mapping[str, Seen]) -> dict[str, Any]:
    """The projection as the wire shows it."""
    found = {name: forecast(one) for name, one in seen.items()}
    ends = {name: _ends(usage, found[name]) for name, usage in org.features.items()}
    now_ms = next(iter(seen.values())).now_ms if seen else org.period.start_ms
    overages = {end: [(name, ends[name][end].overage) for name in ends] for end in ENDS}
    overages["now"] = [(name, usage.overage) for name, usage in org.features.items()]
    plan, prices = catalogue.plans.get(org.plan), PriceList.of(catalogue, org.profile)
    return {
        "org_id": org.org_id,
        "plan": org.plan,
        "currency": catalogue.currency,
        "period": span(org.period),
        "as_of": rfc3339(now_ms),
        "basis": {
            "elapsed_s": max(0, now_ms - org.period.start_ms) // 1000,
            "period_s": (org.period.end_ms - org.period.start_ms) // 1000,
            "recent_s": max((one.recent_ms for one in seen.values()), default=0) // 1000,
        },
        "features": {
            name: _feature(usage, seen[name], found[name], ends[name], _prices(prices, name, usage, ends[name]))
            for name, usage in sorted(org.features.items())
        },
        "bill": {end: bill_view(prices, plan, overages[end]) for end in ("now", *ENDS)},
    }


def _ends(usage: FeatureUsage, found: Forecast) -> dict[str, Outlook]:
    demands = (found.low, found.expected, found.high)
    return {
        end: outlook(usage.rule, usage.used, usage.overage, demand, usage.held)
        for end, demand in zip(ENDS, demands, strict=True)
    }


def _prices(prices: PriceList, name: str, usage: FeatureUsage, ends: Mapping[str, Outlook]) -> dict[str, Any] | None:
    now = price_view(prices, name, usage.overage)
    if now is None:
        return None
    return {"now": now, **{end: price_view(prices, name, ends[end].overage) for end in ENDS}}


def _feature(
    usage: FeatureUsage,
    seen: Seen,
    found: Forecast,
    ends: Mapping[str, Outlook],
    prices: dict[str, Any] | None,
) -> dict[str, Any]:
    rule = usage.rule
    at_ms = reached_ms(rule.limit, usage.used, found.expected, seen.now_ms, seen.period.end_ms)
    return {
        "used": usage.used,
        "limit": rule.limit,
        "on_limit": rule.on_limit.value,
        "enabled": rule.enabled,
        "estimates": {"by_period": found.by_period, "by_last_7_days": found.by_recent},
        "projected": {end: ends[end].used for end in ENDS},
        "limit_reached_at": None if at_ms is None else rfc3339(at_ms),
        "blocked": ends["expected"].blocked.value,
        "overage": {"now": usage.overage, **{end: ends[end].overage for end in ENDS}},
        "price": prices,
    }
