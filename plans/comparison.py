"""What another version of a catalogue changes: its terms told as texts, one beside the other."""

from collections.abc import Mapping
from dataclasses import dataclass

from plans.catalogue import Catalogue, Feature, Plan
from plans.limits import Rule
from plans.tiers import Pricing, Tier

Terms = Mapping[str, str]
"""Texts by where they stand: `plans.pro.scans` is "1000, then overage". Plain JSON, to be kept beside a version."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One term that another version has otherwise; None where a version has none."""

    term: str
    before: str | None
    after: str | None


def terms_of(catalogue: Catalogue) -> dict[str, str]:
    """What a catalogue says of money and limits, every plan and every feature."""
    found = {"currency": catalogue.currency, "default_plan": catalogue.default_plan}
    for plan in catalogue.plans.values():
        found |= _of_plan(plan)
    for feature in catalogue.features.values():
        found[f"features.{feature.name}.overage"] = _of_feature(feature)
        if feature.credits is not None:
            found[f"features.{feature.name}.credits"] = str(feature.credits)
    for package in catalogue.packages.values():
        found[f"credit_packages.{package.credits}.price_minor"] = str(package.price_minor)
    if catalogue.low_credits is not None:
        found["credits.low_mark"] = str(catalogue.low_credits)
    return found


def differences(before: Terms, after: Terms) -> list[Difference]:
    """What differs, by term."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [Difference(name, before.get(name), after.get(name)) for name in names]


def rule_text(rule: Rule | None) -> str:
    """A rule in words: `1000, then overage`, `unlimited`, `off`; sub-windows follow."""
    if rule is None or not rule.enabled:
        return "off"
    text = "unlimited" if rule.limit is None else f"{rule.limit}, then {rule.on_limit.value}"
    return "; ".join([text, *(f"{w.limit} a {'rolling ' * w.rolling}{w.per.value}" for w in rule.windows)])


def _of_plan(plan: Plan) -> dict[str, str]:
    at = f"plans.{plan.name}"
    rate = plan.rate_limit
    found = {
        f"{at}.price_minor": "custom" if plan.price_minor is None else str(plan.price_minor),
        f"{at}.reset": plan.reset.value,
        f"{at}.rate_limit": "none" if rate is None else f"{rate.events} a {rate.per.value}, burst {rate.burst}",
    }
    if plan.yearly is not None:
        found[f"{at}.yearly.price_minor"] = str(plan.yearly.price_minor)
    return found | {f"{at}.{feature}": rule_text(rule) for feature, rule in plan.rules.items()}


def _of_feature(feature: Feature) -> str:
    return "not sold" if feature.pricing is None else _pricing_text(feature.pricing)


def _pricing_text(pricing: Pricing) -> str:
    return f"{pricing.model.value}: " + "; ".join(map(_tier_text, pricing.tiers))


def _tier_text(tier: Tier) -> str:
    text = f"{tier.price_minor} for {tier.per}"
    text += f" and {tier.flat_minor} once" if tier.flat_minor else ""
    return text if tier.up_to is None else f"{text} up to {tier.up_to}"
