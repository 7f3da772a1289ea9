"""Which refusals are about credits: 402 with what they lack, where credits would have paid; 403 where not."""

from typing import Any

from metering.api.outcomes import refusal, track_answer
from metering.usage import Outcome, Result, Standing, UsageEvent
from plans.catalogue import parse
from plans.limits import OnLimit, Rule
from plans.periods import Period
from plans.subwindows import Per, SubWindow
from tests.lua.ledger import CATALOGUE

LAW = parse(CATALOGUE, "test.toml")
EVENT = UsageEvent("acme", "checks", 5)
PERIOD = Period(0, 86_400_000)


def told(rule: Rule, **more: Any) -> dict[str, object]:
    """The problem document of a refusal that stands at 8 units."""
    outcome = Outcome(Result.REFUSED, "free", 8, rule, PERIOD, **more)
    problem = refusal(EVENT, outcome, LAW)
    return {"status": problem.status} | problem.members("req_1")


def test_what_credits_would_have_paid_for_is_402_and_says_what_they_lack() -> None:
    found = told(Rule(10, OnLimit.BLOCK, credits=3), credits_left=4)
    assert (found["status"], found["code"], found["decided_by"]) == (402, "credits-exhausted", "credits")
    assert (found["balance"], found["needed"], found["packages"]) == (4, 9, "/v1/credits/packages")
    assert found["upgrade"] == {"plan": "pro"}


def test_units_that_holds_keep_are_paid_for_too() -> None:
    found = told(Rule(10, OnLimit.BLOCK, credits=3), credits_left=4, standing=Standing(held=2))
    assert (found["remaining"], found["needed"]) == (0, 15)


def test_credits_of_the_feature_alone_pay_one_a_unit() -> None:
    assert told(Rule(10, OnLimit.BLOCK), credits_left=1)["needed"] == 3


def test_other_refusals_stay_403() -> None:
    window = Rule(10, OnLimit.BLOCK, windows=(SubWindow(5, Per.HOUR),), credits=3)
    by_window = told(window, credits_left=90, standing=Standing(decided_by=1))
    assert (by_window["status"], by_window["code"]) == (403, "quota-exceeded")
    assert told(Rule(10, OnLimit.BLOCK))["status"] == 403


def test_an_answer_tells_the_credits_it_took_and_only_then() -> None:
    rule = Rule(10, OnLimit.BLOCK, credits=3)
    paid = Outcome(Result.RECORDED, "free", 13, rule, PERIOD, recorded=5, credits_used=9)
    assert track_answer(EVENT, paid, "evt_1")["credits_used"] == 9
    free = Outcome(Result.RECORDED, "free", 9, rule, PERIOD, recorded=5)
    assert "credits_used" not in track_answer(EVENT, free, "evt_1")
