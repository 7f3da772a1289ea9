"""What a change of plan would mean: the same usage under the present plan and under the other one. Writes nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from metering.api.billing import plan_named, unknown_feature
from metering.api.bodies import invalid
from metering.api.guard import visible
from metering.api.models.outlook import PreviewRequest
from metering.api.prices import PriceList, bill_view, price_view
from metering.api.projection import seen_of
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import span, with_holds
from metering.errors import OrgNotFound
from metering.store.org import Org
from plans.catalogue import Catalogue, Plan
from plans.forecast import Blocked, Outlook, forecast, outlook
from plans.limits import OnLimit, Rule, remaining

SIDES: Final = ("present", "changed", "full_period")

_ABSENT: Final = Rule(None, OnLimit.OVERAGE, enabled=False)
"""The rule of a feature that a plan does not know."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One feature's figures: units now, overage accrued, units asked for by the end, units that open holds keep."""

    used: int
    overage: int
    expected: int
    held: int = 0


async def preview_plan(call: Call) -> Reply:
    """Hold an organisation's usage against the plan in the path."""
    body, catalogue = call.sent(PreviewRequest), call.services.catalogue
    org_id = visible(call.caller, body.org_id)
    plan = plan_named(call.params["plan"], catalogue)
    strangers = [name for name in body.quantities if name not in catalogue.features]
    if strangers:
        raise invalid([unknown_feature("quantities", name, catalogue) for name in strangers])
    org = await call.services.orgs.get(org_id)
    if org is None:
        raise OrgNotFound
    org = await with_holds(call, org)
    seen = await seen_of(call, org)
    usages = {
        name: Usage(usage.used, usage.overage, forecast(seen[name]).expected, usage.held)
        for name, usage in org.features.items()
    }
    usages |= {name: Usage(units, 0, units) for name, units in body.quantities.items()}
    return json_reply(preview_view(org, plan, catalogue, usages, frozenset(body.quantities)))


def preview_view(
    org: Org, plan: Plan, catalogue: Catalogue, usages: Mapping[str, Usage], supposed: Iterable[str]
) -> dict[str, Any]:
    """The preview as the wire shows it. `supposed` are features whose figures are of a whole period under each plan."""
    present = {name: usage.rule for name, usage in org.features.items()}
    same = plan.name == org.plan
    changed = present if same else dict(plan.rules)
    found = {
        name: _sides(usage, present.get(name, _ABSENT), changed.get(name, _ABSENT), whole=name in supposed)
        for name, usage in sorted(usages.items())
    }
    plans = {"present": catalogue.plans.get(org.plan), "changed": plan, "full_period": plan}
    own = PriceList.of(catalogue, org.profile)
    other = own if same else PriceList(catalogue)  # what was agreed goes with the plan that it was agreed for
    prices = {"present": own, "changed": other, "full_period": other}
    return {
        "org_id": org.org_id,
        "plan": org.plan,
        "plan_previewed": plan.name,
        "currency": catalogue.currency,
        "period": span(org.period),
        "blocked": [name for name, sides in found.items() if sides["changed"][1].blocked is Blocked.NOW],
        "drops_own_limits": not same and bool(org.profile.overrides or org.profile.price_minor is not None),
        "features": {
            name: {
                "used": usages[name].used,
                "expected": usages[name].expected,
                **{side: _side(prices[side], name, usages[name], *sides[side]) for side in SIDES},
            }
            for name, sides in found.items()
        },
        "bill": {
            side: bill_view(
                prices[side], plans[side], [(name, sides[side][1].overage) for name, sides in found.items()]
            )
            for side in SIDES
        },
    }


def _sides(usage: Usage, present: Rule, changed: Rule, *, whole: bool) -> dict[str, tuple[Rule, Outlook]]:
    """The rule and where the counter ends: under the present plan, changed now, and for a whole period."""
    used, overage = (0, 0) if whole else (usage.used, usage.overage)
    return {
        "present": (present, outlook(present, used, overage, usage.expected, usage.held)),
        "changed": (changed, outlook(changed, used, overage, usage.expected, usage.held)),
        "full_period": (changed, outlook(changed, 0, 0, usage.expected)),
    }


def _side(prices: PriceList, name: str, usage: Usage, rule: Rule, end: Outlook) -> dict[str, Any]:
    return {
        "limit": rule.limit,
        "remaining": remaining(rule.limit, usage.used, usage.held),
        "on_limit": rule.on_limit.value,
        "enabled": rule.enabled,
        "blocked": end.blocked.value,
        "projected": end.used,
        "overage": end.overage,
        "price": price_view(prices, name, end.overage),
    }
