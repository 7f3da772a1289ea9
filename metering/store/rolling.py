"""What an organisation must become to be current: pure, so that a table can test it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from metering.store.claim import TIERS, Claim, tier_for
from metering.store.fields import new_data_key
from metering.store.org import FeatureUsage, Org, Profile
from plans.billing_periods import following
from plans.catalogue import KEEP, Catalogue, Plan, rules_with
from plans.limits import Rule
from plans.periods import Period, Reset, month_end_utc, month_utc, period_at, previous_month
from plans.subwindows import RateLimit

RATE: Final = "rate limit"
PRICE: Final = "plan price"
"""What can be agreed beside overrides of features: with a blank, as no name of a feature has one."""


@dataclass(frozen=True, slots=True)
class Roll:
    """What a roll writes: the new claim and period, and the rules of a newer catalogue.

    `spent` are the months of ids that nobody looks up any more, as `org|month|tiers`; `early` that the period closes
    before its end; `ended` names what was agreed with the organisation and is over: features, RATE, PRICE.
    """

    claim: Claim
    period: Period
    rules: Mapping[str, Rule]
    rate: RateLimit | None = None
    dropped: tuple[str, ...] = ()
    spent: tuple[str, ...] = ()
    early: bool = False
    ended: tuple[str, ...] = ()


def roll_of(org: Org, now_ms: int, catalogue: Catalogue, *, full: str | None, ids: int, applied: int) -> Roll | None:
    """The roll that makes `org` current at `now_ms`, or None when it is.

    `applied` is the version up to which organisations are brought to this catalogue's limits. `full` is a claim under
    which a dedupe shard was found full; `ids` how many ids the claim's month holds, of use only when the month ended.
    """
    claim = org.claim
    grows = full == claim.text()
    outdated = claim.catalogue < min(applied, catalogue.version)
    if now_ms < claim.valid_until_ms and not grows and not outdated:
        return None
    period = _period(org, now_ms)
    version = catalogue.version if outdated else claim.catalogue
    profile, ended = org.profile.at(now_ms), ended_in(org, now_ms)
    renewed = _renewed(claim, now_ms, period, profile, grows=grows, ids=ids, catalogue=version)
    plan, spent = catalogue.plans.get(org.plan), _spent(org, renewed.month)
    if plan is None or not (outdated or ended):  # a plan that the catalogue no longer has keeps its limits
        return Roll(renewed, period, {}, spent=spent, ended=ended)
    rules, rate = rules_with(plan, profile.overrides), rate_under(plan, profile)
    if not outdated:  # only what has ended is as the plan has it; all else stays as it was resolved
        kept = {name: usage.rule for name, usage in org.features.items()}
        rules = kept | {name: rules[name] for name in ended if name in rules}
        rate = rate if RATE in ended else org.rate
        renewed = replace(renewed, catalogue=min(version, catalogue.version))
    return Roll(renewed, period, rules, rate, dropped_fields(org, rules, rate), spent, ended=ended)


def ended_in(org: Org, now_ms: int) -> tuple[str, ...]:
    """What was agreed, held under the organisation's claim, and is over at `now_ms`.

    A claim never outlives anything that was agreed, so what ended before it ran out was told by an earlier roll.
    """

    def ended(until_ms: int | None) -> bool:
        return until_ms is not None and org.claim.valid_until_ms <= until_ms <= now_ms

    profile = org.profile
    names = [name for name, override in profile.overrides.items() if ended(override.until_ms)]
    names += [RATE] * ended(profile.rate_until_ms) + [PRICE] * ended(profile.price_until_ms)
    return tuple(names)


def brought_to(catalogue: Catalogue, org: Org) -> Org:
    """The organisation under the limits of a newer catalogue; as it is where they are the same, or its plan is gone."""
    law = catalogue.plans.get(org.plan)
    if law is None or org.claim.catalogue >= catalogue.version:
        return org
    features, rate = with_rules(org, rules_with(law, org.profile.overrides)), rate_under(law, org.profile)
    if (features, rate) == (dict(org.features), org.rate):
        return org
    claim = replace(org.claim, revision=org.claim.revision + 1, catalogue=catalogue.version)
    return replace(org, features=features, rate=rate, claim=claim)


def early_roll(org: Org, period: Period) -> Roll:
    """The roll that closes the running period where `period` begins. `org` is current."""
    return Roll(moved_end(org.claim, period, org.profile), period, {}, early=True)


def moved_end(claim: Claim, period: Period, profile: Profile) -> Claim:
    """The claim after the one of an organisation that is current, in a period of other bounds or under other terms."""
    return replace(claim, valid_until_ms=valid_until(period, claim.month, profile), revision=claim.revision + 1)


def newcomer(
    org_id: str, law: Plan, now_ms: int, catalogue: int, *, reset: Reset, timezone: str, tier: str = TIERS[0]
) -> Org:
    """An organisation as it begins: on the plan `law`, in the period that holds now, with a data key of its own.

    `tier` says how many shards its first ids take.
    """
    profile = Profile(reset, timezone, now_ms, new_data_key(), now_ms, now_ms)
    period = period_at(now_ms, reset=reset, anchor_ms=now_ms, timezone=timezone)
    # Random, so that two workers that create the same organisation at once never hold equal claims.
    revision = secrets.randbelow(2**31)
    month = month_utc(now_ms)
    claim = Claim(valid_until(period, month, profile), month, tier, "", revision, catalogue)
    features = {name: FeatureUsage(rule) for name, rule in law.rules.items()}
    return Org(org_id, law.name, period, claim, features, profile, law.rate_limit)


def dropped_fields(org: Org, rules: Mapping[str, Rule], rate: RateLimit | None) -> tuple[str, ...]:
    """Record fields of features that the rules no longer name, and of sub-windows, weights and a rate limit that are
    gone.
    """
    gone = [f"{kind}:{name}" for name in org.features if name not in rules for kind in ("l", "m")]
    for name, usage in org.features.items():
        if usage.rule.windows and not (name in rules and rules[name].windows):
            gone.append(f"w:{name}")
        if usage.rule.credits is not None and (name not in rules or rules[name].credits is None):
            gone.append(f"v:{name}")
    if org.rate is not None and rate is None:
        gone.append("rate")
    return tuple(gone)


def rate_under(plan: Plan, profile: Profile) -> RateLimit | None:
    """The rate limit in force: the organisation's own, or its plan's."""
    return plan.rate_limit if profile.rate is KEEP else profile.rate


def with_rules(org: Org, rules: Mapping[str, Rule]) -> dict[str, FeatureUsage]:
    """The organisation's counters under other rules; a feature that is new begins at zero."""
    return {
        name: replace(org.features[name], rule=rule) if name in org.features else FeatureUsage(rule)
        for name, rule in rules.items()
    }


def _renewed(
    claim: Claim, now_ms: int, period: Period, profile: Profile, *, grows: bool, ids: int, catalogue: int
) -> Claim:
    month = month_utc(now_ms)
    if month == claim.month:
        tiers, before = (claim.grown() if grows else claim.tiers), claim.tiers_before
    else:
        tiers, before = tier_for(ids), claim.tiers if claim.month == previous_month(month) else ""
    return Claim(valid_until(period, month, profile), month, tiers, before, claim.revision + 1, catalogue)


def _spent(org: Org, month: str) -> tuple[str, ...]:
    """The months of ids that a claim of `month` no longer looks up."""
    claim = org.claim
    if month == claim.month:
        return ()
    months = [(previous_month(claim.month), claim.tiers_before)]
    if claim.month != previous_month(month):
        months.append((claim.month, claim.tiers))
    return tuple(f"{org.org_id}|{name}|{tiers}" for name, tiers in months if tiers)


def valid_until(period: Period, month: str, profile: Profile) -> int:
    """Until when a claim of a month holds: to the end of the period, of the month, or of what was agreed."""
    return min(period.end_ms, month_end_utc(month), *profile.ends_ms)


def _period(org: Org, now_ms: int) -> Period:
    """The period that holds now: the running one, or the next, which never begins before the running one ends.

    A subscription's months come before the organisation's own.
    """
    if now_ms < org.period.end_ms:
        return org.period
    profile, sold = org.profile, org.profile.subscription
    if sold is not None and sold.grants and not (sold.cancel_at_period_end and now_ms >= sold.period.end_ms):
        return following(org.period, now_ms, sold.anchor_ms)
    found = period_at(now_ms, reset=profile.reset, anchor_ms=profile.anchor_ms, timezone=profile.timezone)
    return Period(max(found.start_ms, org.period.end_ms), found.end_ms)
