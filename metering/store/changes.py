"""A change of an organisation: what it asks for, what becomes of it, and what it leaves to be seen."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from metering.store.org import Org, Profile, override_entry
from metering.store.rolling import rate_under, valid_until, with_rules
from plans.catalogue import KEEP, Catalogue, Keep, Override, rules_with
from plans.comparison import rule_text
from plans.periods import Reset
from plans.subwindows import RateLimit


@dataclass(frozen=True, slots=True)
class OrgChange:
    """What to set on an organisation; None leaves a thing as it is.

    `overrides` replaces all overrides ({} clears them); a function makes them from those that are kept. A plan that
    differs from the present one keeps none: they were made for the plan before. `rate` counts only with `sets_rate`:
    KEEP is the plan's rate limit, None is none; it goes with the plan too. So does `price_minor`, which counts only
    with `sets_price` (None: what the plan costs). With `sets_end` all that is agreed ends at `end_ms` (None: never).
    """

    plan: str | None = None
    overrides: Mapping[str, Override] | Callable[[Mapping[str, Override]], Mapping[str, Override]] | None = None
    reset: Reset | None = None
    timezone: str | None = None
    stripe_customer_id: str | None = None
    sets_rate: bool = False
    rate: RateLimit | Literal[Keep.KEEP] | None = KEEP
    sets_price: bool = False
    price_minor: int | None = None
    sets_end: bool = False
    end_ms: int | None = None


def changed(org: Org, change: OrgChange, catalogue: Catalogue, now_ms: int = 0) -> Org:
    """The organisation with the change applied. A plan change never resets and never moves the period.

    What the change lets end before `now_ms` is over already.
    """
    plan = change.plan or org.plan
    law = catalogue.plans.get(plan)
    profile = replace(
        _agreed(org.profile if plan == org.plan else _alone(org.profile), change).at(now_ms),
        reset=change.reset or (org.profile.reset if plan == org.plan or law is None else law.reset),
        timezone=change.timezone or org.profile.timezone,
        stripe_customer_id=change.stripe_customer_id or org.profile.stripe_customer_id,
    )
    claim = replace(org.claim, valid_until_ms=valid_until(org.period, org.claim.month, profile))
    after = replace(org, plan=plan, profile=profile, claim=claim)
    if (plan, _rules(profile)) == (org.plan, _rules(org.profile)):
        return after  # the limits stay as they are, also where a newer catalogue set them
    features = org.features if law is None else with_rules(org, rules_with(law, profile.overrides))
    rate = org.rate if law is None else rate_under(law, profile)
    # Limits out of this catalogue, and a claim that says so: a worker with a newer one sets them right.
    return replace(after, features=features, rate=rate, claim=replace(claim, catalogue=catalogue.version))


def _alone(profile: Profile) -> Profile:
    """The profile without what was agreed for a plan."""
    return replace(profile, overrides={}, rate=KEEP, rate_until_ms=None, price_minor=None, price_until_ms=None)


def _agreed(kept: Profile, change: OrgChange) -> Profile:
    """The profile with what a change says of overrides, rate limit, price, and until when they hold."""
    asked = kept.overrides if change.overrides is None else change.overrides
    overrides = dict(asked(kept.overrides) if callable(asked) else asked)
    profile = replace(kept, overrides=overrides)
    if change.sets_rate:
        profile = replace(profile, rate=change.rate, rate_until_ms=None)
    if change.sets_price:
        profile = replace(profile, price_minor=change.price_minor, price_until_ms=None)
    if not change.sets_end:
        return profile
    return replace(
        profile,
        overrides={name: replace(override, until_ms=change.end_ms) for name, override in overrides.items()},
        rate_until_ms=None if profile.rate is KEEP else change.end_ms,
        price_until_ms=None if profile.price_minor is None else change.end_ms,
    )


def _rules(profile: Profile) -> tuple[object, ...]:
    """What of the profile makes limits: not what things cost, nor until when."""
    rules = {name: replace(one, pricing=None, until_ms=None) for name, one in profile.overrides.items()}
    return {name: one for name, one in rules.items() if one.changes}, profile.rate


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
    if before.profile.price_minor != after.profile.price_minor:
        entry += ["price_minor", "plan" if after.profile.price_minor is None else str(after.profile.price_minor)]
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
