"""What an organisation may use, and what it used so far with what that costs: /v1/billing/quota, /v1/billing/usage."""

from typing import Any

from metering.api.billing import rule_view
from metering.api.models.quota import QuotaQuery
from metering.api.prices import PriceList, bill_view, price_view
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found, shown, span
from metering.moments import rfc3339
from metering.store.org import FeatureUsage, Org
from plans.catalogue import Catalogue
from plans.limits import remaining


async def get_quota(call: Call) -> Reply:
    """The limits of one organisation and what is left of them."""
    org = await found(call, call.asked(QuotaQuery).org_id)
    return json_reply(
        {
            "org_id": org.org_id,
            "plan": org.plan,
            "period": span(org.period),
            "reset_date": rfc3339(org.period.end_ms),
            "features": {name: _quota(usage) for name, usage in sorted(org.features.items())},
        }
    )


async def get_summary(call: Call) -> Reply:
    """The running period of one organisation: every counter, how it was covered, and the bill as it stands."""
    org = await found(call, call.asked(QuotaQuery).org_id)
    return json_reply(await shown(call, org) | money_view(org, call.services.catalogue))


def money_view(org: Org, catalogue: Catalogue) -> dict[str, Any]:
    """What the running period costs as it stands: by feature, and in all."""
    prices = PriceList.of(catalogue, org.profile)
    overages = [(name, usage.overage) for name, usage in org.features.items()]
    return {
        "currency": catalogue.currency,
        "charges": {name: _charge(prices, name, usage) for name, usage in sorted(org.features.items())},
        "bill": bill_view(prices, catalogue.plans.get(org.plan), overages),
    }


def older_limits(told: dict[str, Any]) -> dict[str, Any]:
    """The same for clients to whom 0 means unlimited: 0 and null of each feature's `limit` change places."""
    features = {name: feature | {"limit": _swapped(feature["limit"])} for name, feature in told["features"].items()}
    return told | {"features": features}


def _swapped(limit: int | None) -> int | None:
    return 0 if limit is None else limit or None


def _quota(usage: FeatureUsage) -> dict[str, Any]:
    left = remaining(usage.rule.limit, usage.used, usage.held)
    return rule_view(usage.rule) | {"current": usage.used, "reserved": usage.held, "remaining": left}


def _charge(prices: PriceList, feature: str, usage: FeatureUsage) -> dict[str, Any]:
    return {
        "included": usage.used - usage.credit - usage.overage,
        "credit": usage.credit,
        "overage": usage.overage,
        "price": price_view(prices, feature, usage.overage),
    }
