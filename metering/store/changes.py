"""A change of an organisation: what it asks for, what becomes of it, and what it leaves to be seen."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from metering.store.org import Org, override_entry
from metering.store.rolling import rate_under, with_rules
from plans.catalogue import KEEP, Catalogue, Keep, Override, rules_with
from plans.comparison import rule_text
from plans.periods import Reset
from plans.subwindows import RateLimit


@dataclass(frozen=True, slots=True)
class OrgChange:
    """What to set on an organisation; None leaves a thing as it is.

    `overrides` replaces all overrides ({} clears them); a function makes them from those that are kept. A plan that
    differs from the present one keeps none: they were made for the plan before. `rate` counts only with `sets_rate`:
    KEEP is the plan's rate limit, None is none; it goes with the plan too.
    """

    plan: str | None = None
    overrides: Mapping[str, Override] | Callable[[Mapping[str, Override]], Mapping[str, Override]] | None = None
    reset: Reset | None = None
    timezone: str | None = None
    stripe_customer_id: str | None = None
    sets_rate: bool = False
    rate: RateLimit | Literal[Keep.KEEP] | None = KEEP


def changed(org: Org, change: OrgChange, catalogue: Catalogue) -> Org:
    """The organisation with the change applied. A plan change never resets and never moves the period."""
    plan = change.plan or org.plan
    kept = org.profile.overrides if plan == org.plan else {}
    asked = kept if change.overrides is None else change.overrides
    overrides = asked(kept) if callable(asked) else asked
    law = catalogue.plans.get(plan)
    profile = replace(
        org.profile,
        overrides=dict(overrides),
        reset=change.reset or (org.profile.reset if plan == org.plan or law is None else law.reset),
        timezone=change.timezone or org.profile.timezone,
        stripe_customer_id=change.stripe_customer_id or org.profile.stripe_customer_id,
        rate=change.rate if change.sets_rate else org.profile.rate if plan == org.plan else KEEP,
    )
    after = replace(org, plan=plan, profile=profile)
    if (plan, profile.overrides, profile.rate) == (org.plan, org.profile.overrides, org.profile.rate):
        return after  # the limits stay as they are, also where a newer catalogue set them
    features = org.features if law is None else with_rules(org, rules_with(law, overrides))
    rate = org.rate if law is None else rate_under(law, profile)
    # Limits out of this catalogue, and a claim that says so: a worker with a newer one sets them right.
    claim = replace(org.claim, catalogue=catalogue.version)
    return replace(after, features=features, rate=rate, claim=claim)


def is_written(tried: Org, found: Org) -> bool:
    """Whether the store holds what a change tried to write; `updated` is the script's own."""
    profile = replace(found.profile, updated_ms=tried.profile.updated_ms)
    return (found.claim, found.plan, profile) == (tried.claim, tried.plan, tried.profile)


def trail_entry(before: Org | None, after: Org, actor: str) -> list[str]:
    """The trail's words for a change: type first, then who and what."""
    if before is None:
        return ["org_created", "plan", after.plan, "actor", actor]
    if (before.plan, before.profile) == (after.plan, after.profile):
        return _brought(before, after, actor)
    kind = "plan_changed" if before.plan != after.plan else "org_updated"
    entry = [kind, "actor", actor, "plan_before", before.plan, "plan", after.plan]
    if before.profile.overrides != after.profile.overrides:
        entry += ["overrides", _entries(after)]
    if before.profile.stripe_customer_id != after.profile.stripe_customer_id:
        entry += ["stripe_customer", "changed"]
    return entry


def _brought(before: Org, after: Org, actor: str) -> list[str]:
    """The words for limits of a newer catalogue."""
    rules = {name: usage.rule for name, usage in before.features.items()}
    limits = {
        name: [rule_text(rules.get(name)), rule_text(usage.rule)]
        for name, usage in after.features.items()
        if usage.rule != rules.get(name)
    }
    versions = ["catalogue_before", str(before.claim.catalogue), "catalogue", str(after.claim.catalogue)]
    return ["catalogue_applied", "actor", actor, "plan", after.plan, *versions, "limits", json.dumps(limits)]


def _entries(org: Org) -> str:
    return json.dumps({name: override_entry(o) for name, o in sorted(org.profile.overrides.items())})
