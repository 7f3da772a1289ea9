"""What the plans of a service grant and cost: a catalogue, made from the text of a TOML file.

`catalogue_file` says what such a file may hold. Nothing here reads a file: the caller brings the text.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

from plans.catalogue_file import CatalogueError, Fault, nearest, read
from plans.catalogue_tables import (
    NAME_PATTERN,
    CatalogueTable,
    FeatureTable,
    LeaseExpiry,
    PlanTable,
    RateTable,
    RuleTable,
)
from plans.limits import OnLimit, Rule, remaining
from plans.meters import Meters
from plans.meters_file import meters_of
from plans.packages import Package
from plans.packages_file import packages_from
from plans.periods import Reset
from plans.prices_file import pricing_of
from plans.subwindows import RateLimit, SubWindow
from plans.tiers import Pricing

__all__ = [
    "KEEP",
    "NAME_PATTERN",
    "Catalogue",
    "CatalogueError",
    "Fault",
    "Feature",
    "LeaseExpiry",
    "Override",
    "Plan",
    "YearlyPrice",
    "nearest",
    "parse",
    "plan_with_room",
    "pricing_for",
    "rules_with",
]


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""An override that leaves the plan's limit alone; None would mean unlimited."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that is metered.

    Overage costs `overage_price_minor` (minor units of the catalogue's currency; None: it is not sold so) per
    `overage_per` units, or what `pricing` says, which covers that too (None: it is not sold).
    `stripe_meter_event` is the event name of its Stripe meter. `credits` is what one unit costs of them (None: they do
    not pay for it).
    """

    name: str
    title: str
    unit: str
    stripe_meter_event: str | None = None
    overage_price_minor: int | None = None
    overage_per: int = 1
    lease_expiry: LeaseExpiry = LeaseExpiry.CHARGE
    pricing: Pricing | None = None
    credits: int | None = None


@dataclass(frozen=True, slots=True)
class YearlyPrice:
    """What a plan costs by the year. Limits hold by the month all the same."""

    price_minor: int
    stripe_price_env: str | None = None
    stripe_price_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an organisation buys: a rule for every feature of the catalogue.

    `price_minor` is for one month, in minor units of the catalogue's currency; None is a custom price. A Stripe price
    is either an id or the name of the environment variable that holds it. `yearly` None: it is not sold by the year.
    `includes` is what people are shown besides the limits.
    """

    name: str
    title: str
    reset: Reset
    rules: Mapping[str, Rule]
    price_minor: int | None
    stripe_price_env: str | None = None
    stripe_price_id: str | None = None
    rate_limit: RateLimit | None = None
    yearly: YearlyPrice | None = None
    includes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All plans and features. `version` is raised with every change of the content.

    `digest` is the SHA-256 (hex) of the content, comments, layout and order left out: a file with a known
    version and another digest was changed without raising it. `default_plan` is for new organisations,
    `default_feature` for events that name none. `currency` is an ISO 4217 code in lower case. `dimensions` are what
    history is also kept by: `actor` or keys of metadata, each with the most values it may have in a month.
    `meters` are the rules by which events of other systems count. `packages` are sold, by their number of credits, the
    smallest first; below `low_credits` a balance is low (None: unless an organisation has a mark of its own, never).
    """

    version: int
    digest: str
    currency: str
    default_plan: str
    default_feature: str
    features: Mapping[str, Feature]
    plans: Mapping[str, Plan]
    dimensions: Mapping[str, int]
    meters: Meters
    packages: Mapping[int, Package]
    low_credits: int | None


@dataclass(frozen=True, slots=True)
class Override:
    """What one organisation has otherwise than its plan, for one feature. The defaults change nothing.

    `pricing` is what its overage costs it. From `until_ms` on nothing of it holds any more (None: it never ends).
    """

    limit: int | Literal[Keep.KEEP] | None = KEEP
    on_limit: OnLimit | None = None
    enabled: bool | None = None
    windows: tuple[SubWindow, ...] | None = None
    pricing: Pricing | None = None
    until_ms: int | None = None

    @property
    def changes(self) -> bool:
        """Whether it says anything but until when."""
        return replace(self, until_ms=None) != Override()

    def over(self, rule: Rule) -> Rule:
        """The rule with this override applied."""
        return Rule(
            limit=rule.limit if self.limit is KEEP else self.limit,
            on_limit=rule.on_limit if self.on_limit is None else self.on_limit,
            enabled=rule.enabled if self.enabled is None else self.enabled,
            windows=rule.windows if self.windows is None else self.windows,
            credits=rule.credits,
        )


def parse(text: str, file: str) -> Catalogue:
    """The catalogue of a TOML text; `file` is what faults show. Raises CatalogueError with all faults."""
    table = read(text, file)
    features = {name: _feature(name, feature) for name, feature in table.features.items()}
    return Catalogue(
        version=table.version,
        digest=_digest(table),
        currency=table.currency,
        default_plan=table.default_plan,
        default_feature=table.default_feature,
        features=MappingProxyType(features),
        plans=MappingProxyType({name: _plan(name, plan, features) for name, plan in table.plans.items()}),
        dimensions=MappingProxyType(dict(table.dimensions)),
        meters=meters_of(table.meters),
        packages=MappingProxyType(packages_from(table.credit_packages)),
        low_credits=table.credits.low_mark,
    )


def rules_with(plan: Plan, overrides: Mapping[str, Override]) -> dict[str, Rule]:
    """The plan's rules with an organisation's overrides applied.

    An override of a feature the plan does not know (the catalogue dropped it since) has no effect.
    """
    none = Override()
    return {name: overrides.get(name, none).over(rule) for name, rule in plan.rules.items()}


def pricing_for(catalogue: Catalogue, overrides: Mapping[str, Override], feature: str) -> Pricing | None:
    """What overage of a feature costs an organisation: its own price, or the catalogue's; None: it is not sold."""
    known = catalogue.features.get(feature)
    own = overrides.get(feature, Override()).pricing
    return None if known is None else own or known.pricing


def plan_with_room(catalogue: Catalogue, plan: str, feature: str, used: int, quantity: int = 1) -> str | None:
    """The cheapest other plan under whose limit `quantity` more units of the feature fit after `used`.

    A custom price counts as the dearest; of equal prices the first name wins. None where no plan has room.
    """
    others = [other for other in catalogue.plans.values() if other.name != plan]
    roomy = [other for other in others if _has_room(other.rules.get(feature), used + quantity - 1)]
    return min(roomy, key=_price_order).name if roomy else None


def _has_room(rule: Rule | None, used: int) -> bool:
    return rule is not None and rule.enabled and remaining(rule.limit, used) != 0


def _price_order(plan: Plan) -> tuple[bool, int, str]:
    return (plan.price_minor is None, plan.price_minor or 0, plan.name)


def _feature(name: str, table: FeatureTable) -> Feature:
    return Feature(
        name=name,
        title=table.title,
        unit=table.unit,
        stripe_meter_event=table.stripe_meter_event,
        overage_price_minor=table.overage_price_minor,
        overage_per=table.overage_per,
        lease_expiry=table.lease_expiry,
        pricing=pricing_of(table.overage_model, table.overage_tiers, table.overage_price_minor, table.overage_per),
        credits=table.credits,
    )


def _plan(name: str, table: PlanTable, features: Mapping[str, Feature]) -> Plan:
    rules = {
        feature: _rule(rule, table.on_limit, features[feature].credits) for feature, rule in table.features.items()
    }
    return Plan(
        name=name,
        title=table.title,
        reset=table.reset,
        rules=MappingProxyType(rules),
        price_minor=table.price_minor,
        stripe_price_env=table.stripe_price_env,
        stripe_price_id=table.stripe_price_id,
        rate_limit=None if table.rate_limit is None else _rate(table.rate_limit),
        yearly=None if table.yearly is None else YearlyPrice(**table.yearly.model_dump()),
        includes=table.includes,
    )


def _rule(table: RuleTable, on_limit: OnLimit, weight: int | None) -> Rule:
    windows = tuple(SubWindow(window.limit, window.per, window.rolling) for window in table.windows)
    return Rule(table.limit, table.on_limit or on_limit, table.enabled, windows, weight)


def _rate(table: RateTable) -> RateLimit:
    return RateLimit(table.events, table.per, table.burst)


def _digest(table: CatalogueTable) -> str:
    """Defaults are left out, so a key that a later release adds does not change the digest of an old file."""
    content = table.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
