"""What an organisation must become to be current: the table behind roll.lua."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.store.changes import OrgChange, changed
from metering.store.claim import Claim
from metering.store.org import FeatureUsage, Org
from metering.store.rolling import Roll, dropped_fields, newcomer, roll_of, with_rules
from plans.catalogue import Catalogue, Override, parse
from plans.limits import OnLimit, Rule
from plans.periods import Period, Reset, month_utc, period_at
from tests.lua.ledger import CATALOGUE
from tests.lua.scenes import DAY_MS, instant

BORN_MS: Final = instant("2031-01-10T12:30:05")
FEBRUARY_MS: Final = instant("2031-02-01T00:00:00")
LAW: Final = parse(CATALOGUE, "test.toml")
NEWER: Final = parse(CATALOGUE.replace("version = 1", "version = 2").replace("limit = 40", "limit = 41"), "test.toml")


def org_on(plan: str = "free", *, at_ms: int = BORN_MS, timezone: str = "UTC", **claim: Any) -> Org:
    """An organisation that began at `at_ms` on `plan`, parts of its claim replaced."""
    law = LAW.plans[plan]
    org = newcomer("acme", law, at_ms, LAW.version, reset=law.reset, timezone=timezone)
    return replace(org, claim=replace(org.claim, **claim))


def rolled(org: Org, now_ms: int, *, catalogue: Catalogue = LAW, full: str | None = None, ids: int = 0) -> Roll:
    """The roll there must be."""
    roll = roll_of(org, now_ms, catalogue, full=full, ids=ids, applied=9)
    assert roll is not None
    return roll


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("now_ms", [BORN_MS, FEBRUARY_MS - 1])
def test_an_organisation_is_current_until_its_claim_runs_out(now_ms: int) -> None:
    assert roll_of(org_on(), now_ms, LAW, full=None, ids=0, applied=9) is None


def test_an_organisation_is_rolled_from_the_instant_its_claim_runs_out() -> None:
    assert rolled(org_on(), FEBRUARY_MS).period.start_ms == FEBRUARY_MS


def test_a_full_shard_under_another_claim_is_nobodys_business() -> None:
    assert roll_of(org_on(), BORN_MS, LAW, full="1:10:203101:0::0.1", ids=0, applied=9) is None


def test_an_older_catalogue_rolls_nothing() -> None:
    assert roll_of(org_on(catalogue=2), BORN_MS, LAW, full=None, ids=0, applied=9) is None


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_shard_grows_the_tiers_and_moves_no_period() -> None:
    org = org_on(revision=5)
    roll = rolled(org, BORN_MS, full=org.claim.text())
    assert roll == Roll(replace(org.claim, tiers="04", revision=6), org.period, {})


@pytest.mark.parametrize(
    ("now", "ids", "tiers", "before"),
    [
        ("2031-02-01", 0, "0", "04"),
        ("2031-02-01", 201, "4", "04"),
        ("2031-02-28", 5_000, "8", "04"),
        ("2031-03-01", 5_000, "8", ""),
        ("2032-01-15", 0, "0", ""),
    ],
)
def test_a_new_month_begins_with_one_tier_and_remembers_only_the_month_before(
    now: str, ids: int, tiers: str, before: str
) -> None:
    roll = rolled(org_on(tiers="04"), instant(f"{now}T00:00:00"), ids=ids)
    assert (roll.claim.month, roll.claim.tiers, roll.claim.tiers_before) == (
        now[:7].replace("-", ""), tiers, before,
    )  # fmt: skip


def test_the_tiers_of_the_month_before_stay_while_the_month_runs() -> None:
    org = org_on(tiers="04", tiers_before="048")
    roll = rolled(org, BORN_MS, full=org.claim.text())
    assert (roll.claim.tiers, roll.claim.tiers_before) == ("048", "048")


def test_a_month_that_ends_inside_a_period_moves_only_the_claim() -> None:
    org = org_on("pro")
    roll = rolled(org, FEBRUARY_MS)
    assert roll.period == org.period
    assert roll.claim.valid_until_ms == org.period.end_ms


@pytest.mark.parametrize(("plan", "until"), [("free", "2031-02-01T00:00:00"), ("pro", "2031-02-01T00:00:00")])
def test_a_claim_ends_with_the_month_or_the_period_whichever_is_first(plan: str, until: str) -> None:
    assert org_on(plan).claim.valid_until_ms == instant(until)


def test_a_claim_ends_with_the_period_where_that_is_first() -> None:
    org = org_on("pro", at_ms=instant("2031-01-31T08:00:00"))
    assert rolled(org, FEBRUARY_MS).claim.valid_until_ms == instant("2031-02-28T08:00:00")


def test_a_longer_period_never_reaches_back_into_the_one_that_ended() -> None:
    org = org_on("free")
    moved = replace(org, profile=replace(org.profile, reset=Reset.ANNIVERSARY))
    assert rolled(moved, FEBRUARY_MS).period == Period(FEBRUARY_MS, BORN_MS + 31 * DAY_MS)


def test_a_newer_catalogue_sets_the_rules_of_the_plan_with_the_overrides() -> None:
    org = org_on("pro")
    org = replace(org, profile=replace(org.profile, overrides={"calls": Override(limit=1)}))
    roll = rolled(org, BORN_MS, catalogue=NEWER)
    assert (roll.claim.catalogue, roll.period, roll.dropped) == (2, org.period, ())
    assert (roll.rules["scans"].limit, roll.rules["calls"]) == (41, Rule(1, OnLimit.BLOCK))


def test_a_plan_that_a_newer_catalogue_no_longer_has_keeps_its_limits() -> None:
    roll = rolled(replace(org_on("pro"), plan="gone"), BORN_MS, catalogue=NEWER)
    assert (roll.claim.catalogue, roll.rules, roll.dropped) == (2, {}, ())


def test_a_feature_that_a_newer_catalogue_no_longer_has_is_dropped() -> None:
    org = org_on()
    org = replace(org, features={**org.features, "old": FeatureUsage(Rule(1), used=3)})
    assert rolled(org, BORN_MS, catalogue=NEWER).dropped == ("l:old", "m:old")


# ── what was agreed ──────────────────────────────────────────────────────────────────────────────────────

END_MS: Final = BORN_MS + DAY_MS


def agreed(plan: str = "free", limit: int = 3, end_ms: int | None = END_MS) -> Org:
    """An organisation with a limit of its own for scans, until then."""
    org = org_on(plan)
    change = OrgChange(overrides={"scans": Override(limit=limit, until_ms=end_ms)})
    return changed(org, change, LAW, BORN_MS)


@pytest.mark.parametrize(("now_ms", "current"), [(END_MS - 1, True), (END_MS, False)])
def test_a_claim_never_outlives_what_was_agreed(now_ms: int, current: bool) -> None:
    org = agreed()
    assert (org.claim.valid_until_ms, org.features["scans"].rule.limit) == (END_MS, 3)
    assert (roll_of(org, now_ms, LAW, full=None, ids=0, applied=9) is None) is current


def test_what_has_ended_is_as_the_plan_has_it_and_all_else_stays_as_it_was_resolved() -> None:
    """A newer catalogue that nobody applied says something of the feature that is resolved anew alone."""
    roll = roll_of(agreed("pro"), END_MS, NEWER, full=None, ids=0, applied=1)
    assert roll is not None
    assert (roll.ended, roll.claim.catalogue, roll.claim.valid_until_ms) == (("scans",), 1, FEBRUARY_MS)
    assert roll.rules["scans"].limit == 41
    assert {name: rule for name, rule in roll.rules.items() if name != "scans"} == {
        name: rule for name, rule in LAW.plans["pro"].rules.items() if name != "scans"
    }


def test_what_ended_under_an_earlier_claim_is_told_once() -> None:
    org = agreed()
    roll = rolled(org, END_MS)
    after = replace(org, claim=roll.claim, features=with_rules(org, roll.rules))
    assert rolled(after, FEBRUARY_MS).ended == ()


def test_a_period_and_an_agreement_that_end_together_do_so_in_one_roll() -> None:
    roll = rolled(agreed(end_ms=FEBRUARY_MS), FEBRUARY_MS)
    assert (roll.ended, roll.period.start_ms, roll.rules["scans"].limit) == (("scans",), FEBRUARY_MS, 10)


def test_an_agreement_on_a_plan_that_is_gone_keeps_its_limits() -> None:
    roll = rolled(replace(agreed(), plan="gone"), END_MS)
    assert (roll.ended, roll.rules) == (("scans",), {})


# ── always ───────────────────────────────────────────────────────────────────────────────────────────────

INSTANTS = st.integers(instant("2024-01-01T00:00:00"), instant("2040-01-01T00:00:00"))


@given(
    born_ms=INSTANTS,
    waited_ms=st.one_of(st.integers(0, 3 * DAY_MS), st.integers(0, 400 * DAY_MS)),
    plan=st.sampled_from(sorted(LAW.plans)),
    reset=st.sampled_from(Reset),
    timezone=st.sampled_from(["UTC", "Europe/Paris", "America/St_Johns", "Pacific/Apia"]),
)
def test_whatever_happened_the_roll_holds_now_and_follows_what_was(
    born_ms: int, waited_ms: int, plan: str, reset: Reset, timezone: str
) -> None:
    org, now_ms = org_on(plan, at_ms=born_ms, timezone=timezone), born_ms + waited_ms
    org = replace(org, profile=replace(org.profile, reset=reset))
    roll = roll_of(org, now_ms, LAW, full=None, ids=0, applied=9)
    if roll is None:
        assert now_ms < org.claim.valid_until_ms
        return
    assert roll.period == org.period or roll.period.start_ms >= org.period.end_ms
    assert roll.period.start_ms <= now_ms < roll.period.end_ms
    assert now_ms < roll.claim.valid_until_ms <= roll.period.end_ms
    assert roll.claim.month == month_utc(now_ms)
    assert roll.claim.revision == org.claim.revision + 1


# ── the beginning ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reset", Reset)
def test_a_newcomer_begins_in_the_period_that_holds_now(reset: Reset) -> None:
    org = newcomer("acme", LAW.plans["free"], BORN_MS, 7, reset=reset, timezone="Europe/Paris")
    assert org.period == period_at(BORN_MS, reset=reset, anchor_ms=BORN_MS, timezone="Europe/Paris")
    assert (org.claim.month, org.claim.tiers, org.claim.tiers_before, org.claim.catalogue) == ("203101", "0", "", 7)
    assert {name: usage.rule for name, usage in org.features.items()} == LAW.plans["free"].rules


def test_two_workers_that_make_the_same_newcomer_hold_different_ones() -> None:
    one, other = org_on(), org_on()
    assert one.claim.revision != other.claim.revision
    assert one.profile.data_key != other.profile.data_key


def test_counters_stay_under_other_rules_and_new_features_begin_at_zero() -> None:
    org = replace(org_on(), features={"scans": FeatureUsage(Rule(1), used=3, overage=2), "old": FeatureUsage(Rule(1))})
    rules = {"scans": Rule(9), "fresh": Rule(None)}
    assert with_rules(org, rules) == {
        "scans": FeatureUsage(Rule(9), used=3, overage=2), "fresh": FeatureUsage(Rule(None)),
    }  # fmt: skip
    assert dropped_fields(org, rules, None) == ("l:old", "m:old")


def test_a_claim_of_the_past_is_rolled_however_long_ago() -> None:
    org = replace(org_on(), claim=Claim(0, "197001", "0", "", 0, 1), period=Period(0, 1))
    assert rolled(org, BORN_MS).period == Period(instant("2031-01-01T00:00:00"), FEBRUARY_MS)
