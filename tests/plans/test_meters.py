"""Meter rules: which features an event of another system counts, and every way a file can say them wrongly."""

import re
from typing import Any

import pytest

from plans.catalogue import parse
from plans.limits import QUANTITY_MAX
from plans.meters import Count, MeterRule, Meters, Unfit, measured, unreached, value_at
from plans.meters_file import COUNTS_MAX, MATCHES_MAX, METERS_MAX
from tests.house.repo import ROOT
from tests.plans.test_catalogue_faults import GOOD, faults_of

RULES = """
[[meters]]
type = "llm.completion"
match = { "$.model.name" = "large", "$.cached" = false }
features = [ { feature = "scans", quantity = "$.usage.tokens" }, { feature = "calls" } ]
[[meters]]
type = "llm.completion"
features = [ { feature = "calls", quantity = 2 } ]
"""
FULL = GOOD + RULES
LARGE = {"model": {"name": "large"}, "cached": False}


def rule_of(event_type: str, data: Any) -> MeterRule | None:
    return parse(FULL, "plans.toml").meters.rule_of(event_type, data)


@pytest.mark.parametrize(
    ("event_type", "data", "found"),
    [
        ("llm.completion", LARGE | {"usage": {"tokens": 7}}, [("scans", 7), ("calls", 1)]),
        ("llm.completion", LARGE | {"usage": {"tokens": 7.0}}, [("scans", 7), ("calls", 1)]),
        ("llm.completion", LARGE | {"cached": 0, "usage": {"tokens": 7}}, [("calls", 2)]),
        ("llm.completion", {"model": "large", "cached": False}, [("calls", 2)]),
        ("llm.completion", None, [("calls", 2)]),
        ("usage.scans", {"quantity": 5}, [("scans", 5)]),
        ("usage.scans", {"chain": "ethereum"}, [("scans", 1)]),
        ("usage.scans", None, [("scans", 1)]),
        ("usage.nobody_knows", {}, [("nobody_knows", 1)]),
    ],
)  # fmt: skip
def test_an_event_counts_what_the_first_rule_that_fits_says(event_type: str, data: Any, found: Any) -> None:
    rule = rule_of(event_type, data)
    assert rule is not None
    assert measured(rule, data) == tuple(found)


@pytest.mark.parametrize("event_type", ["llm", "scans", "usage", "Usage.scans", "", "llm.completion.v2"])
def test_an_event_that_no_rule_fits_counts_nothing(event_type: str) -> None:
    assert rule_of(event_type, {"quantity": 1}) is None


def test_the_default_rule_comes_after_those_of_the_file() -> None:
    text = GOOD + '[[meters]]\ntype = "usage.scans"\nmatch = { "$.free" = true }\nfeatures = [{ feature = "calls" }]\n'
    meters = parse(text, "plans.toml").meters
    for data, feature in (({"free": True}, "calls"), ({"free": 1}, "scans"), ({}, "scans")):
        rule = meters.rule_of("usage.scans", data)
        assert rule is not None
        assert measured(rule, data) == ((feature, 1),)


@pytest.mark.parametrize(
    ("value", "wanted", "same"),
    [
        ("one", 1, False),
        (1, "one", False),
        (True, 1, False),
        (1, True, False),
        (False, False, True),
        (5.0, 5, True),
        (5.5, 5, False),
        (None, False, False),
        ({"a": 1}, "a", False),
        ("", "", True),
    ],
)
def test_values_are_equal_as_json_is(value: Any, wanted: Any, same: bool) -> None:
    meters = Meters([MeterRule("t", ((("a", "b"), wanted),), (Count("scans"),))])
    assert (meters.rule_of("t", {"a": {"b": value}}) is not None) == same


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is missing or null"),
        (0, "is not a whole number"),
        (-1, "is not a whole number"),
        (1.5, "is not a whole number"),
        (True, "is not a whole number"),
        ("5", "is not a whole number"),
        ([5], "is not a whole number"),
        (QUANTITY_MAX + 1, "is not a whole number"),
        (float("inf"), "is not a whole number"),
    ],
)
def test_a_quantity_that_is_none_names_its_place(value: Any, reason: str) -> None:
    rule = MeterRule("t", (), (Count("scans", ("usage", "tokens")), Count("calls", ("n",))))
    found = measured(rule, {"usage": {"tokens": value}, "n": 3})
    assert [(type(entry), entry.steps) for entry in found if isinstance(entry, Unfit)] == [(Unfit, ("usage", "tokens"))]
    assert isinstance(found[0], Unfit)
    assert found[0].reason.startswith(reason)


def test_every_quantity_that_is_none_is_told() -> None:
    rule = MeterRule("t", (), (Count("scans", ("a",)), Count("calls", ("b",))))
    assert [entry.steps for entry in measured(rule, []) if isinstance(entry, Unfit)] == [("a",), ("b",)]


@pytest.mark.parametrize("data", [None, 5, "text", [1], {"a": None}, {"a": [{"b": 1}]}, {}])
def test_a_path_that_leads_nowhere_has_nothing(data: Any) -> None:
    assert value_at(data, ("a", "b")) is None


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([("t", {}), ("t", {"$.a": 1})], [(1, 0)]),
        ([("t", {"$.a": 1}), ("t", {})], []),
        ([("t", {"$.a": 1}), ("t", {"$.b": 1, "$.a": 1})], [(1, 0)]),
        ([("t", {"$.a": 1}), ("t", {"$.a": True})], []),
        ([("t", {"$.a": 1}), ("t", {"$.a": 2})], []),
        ([("t", {}), ("s", {})], []),
        ([("t", {}), ("t", {}), ("t", {})], [(1, 0), (2, 0)]),
    ],
)
def test_a_rule_behind_a_wider_one_is_never_reached(rules: Any, found: list[tuple[int, int]]) -> None:
    assert list(unreached(rules)) == found


def test_rules_are_equal_when_they_say_the_same() -> None:
    assert parse(FULL, "a.toml").meters == parse(FULL, "b.toml").meters != parse(GOOD, "a.toml").meters
    assert hash(Meters()) == hash(parse(GOOD, "a.toml").meters)


def test_a_file_without_rules_keeps_its_digest_and_one_with_them_has_another() -> None:
    plain = parse(GOOD, "a.toml").digest
    assert parse("meters = []\n" + GOOD, "a.toml").digest == plain
    assert parse(FULL, "a.toml").digest != plain
    assert parse(FULL.replace("quantity = 2", "quantity = 3"), "a.toml").digest != parse(FULL, "a.toml").digest


@pytest.mark.parametrize(
    ("before", "after", "key", "reason", "cure"),
    [
        ('type = "llm.completion"\nmatch', "match", "0.type", "is missing", "`type` of the events"),
        ('type = "llm.completion"\nmatch', 'type = ""\nmatch', "0.type", "is empty", "`type` of the events"),
        ('type = "llm.completion"\nmatch', "type = 5\nmatch", "0.type", "5 is not text", "`type` of the events"),
        ('"$.model.name" =', '"model.name" =', '0.match."model.name"', "is not a path", '"$.usage.tokens"'),
        ('"$.model.name" =', '"$" =', '0.match."$"', "is not a path", "$.model"),
        ('"$.model.name" =', '"$.a..b" =', '0.match."$.a..b"', "is not a path", "$.model"),
        ('"$.model.name" =', '"$.a b" =', '0.match."$.a b"', "is not a path", "$.model"),
        ('"$.model.name" =', f'"$.{".".join("abcdefghi")}" =', None, "is not a path", "$.model"),
        ('= "large"', "= 1.5", '0.match."$.model.name"', "1.5 is not a text, a whole number", "up to 8 paths"),
        ('= "large"', "= ['large']", '0.match."$.model.name"', "is not a text", "up to 8 paths"),
        ('= "large"', f'= "{"x" * 201}"', '0.match."$.model.name"', "is not a text", "up to 8 paths"),
        ('= "large"', f"= 0x{'f' * 4000}", '0.match."$.model.name"', "this number is not", "up to 8 paths"),
        ("match =", "matches =", "0.matches", "is not a known key here", "Did you mean match?"),
        ("match =", "feature =", "0.feature", "is not a known key here", "Did you mean features?"),
        ('{ feature = "scans"', '{ feature = "scan"', "0.features.0.feature", "is not a", "Did you mean scans?"),
        ('{ feature = "scans"', '{ feature = "tokens"', "0.features.0.feature", "is not a", "Add it to"),
        ('{ feature = "scans"', '{ feature = "calls"', "0.features.1.feature", "is counted by this rule", "once"),
        ('{ feature = "scans"', "{ feature = 5", "0.features.0.feature", "5 is not text", "a feature of this file"),
        ('{ feature = "scans", ', "{ ", "0.features.0.feature", "is missing", "a feature of this file"),
        ('"$.usage.tokens"', '"usage.tokens"', "0.features.0.quantity", "or a path", "$.tokens"),
        ('"$.usage.tokens"', "0", "0.features.0.quantity", "0 is not a whole number", "a whole number of units"),
        ('"$.usage.tokens"', "true", "0.features.0.quantity", "True is not a whole", "a whole number of units"),
        ('"$.usage.tokens"', "1.5", "0.features.0.quantity", "1.5 is not a whole", "a whole number of units"),
        ("quantity = 2", "quantities = 2", "1.features.0.quantities", "is not a known key", "Did you mean quantity?"),
        ('[ { feature = "calls", quantity = 2 } ]', "[]", "1.features", "fewer than 1", "1 to 8 tables"),
        ('[ { feature = "calls", quantity = 2 } ]', '"calls"', "1.features", "is not a list", "1 to 8 tables"),
        ('[ { feature = "calls", quantity = 2 } ]', "[3]", "1.features.0", "3 is not a table", "1 to 8 tables"),
        ('match = { "$.model.name" = "large", "$.cached" = false }\n', "", "1", "takes all", "Move it before"),
        (RULES, "[meters]\na = 1\n", "", "is not a list", "[[meters]]"),
        (RULES, f"[[meters]]\n{RULES}", "0.type", "is missing", "`type` of the events"),
    ],
)  # fmt: skip
def test_what_a_rule_says_wrongly_is_told(before: str, after: str, key: str | None, reason: str, cure: str) -> None:
    assert before in FULL
    told = [fault for fault in faults_of(FULL.replace(before, after, 1)) if key in {None, fault.key.partition(".")[2]}]
    assert len(told) == 1
    assert reason in told[0].reason
    assert cure in told[0].cure


def test_a_rule_compares_and_counts_only_so_much() -> None:
    match = ", ".join(f'"$.k{number}" = 1' for number in range(MATCHES_MAX + 1))
    counts = ", ".join('{ feature = "calls" }' for _ in range(COUNTS_MAX + 1))
    text = GOOD + f'[[meters]]\ntype = "t"\nmatch = {{ {match} }}\nfeatures = [ {counts} ]\n'
    told = {fault.key: fault.reason for fault in faults_of(text) if "already" not in fault.reason}
    assert set(told) == {"meters.0.match", "meters.0.features"}
    assert all(reason.endswith("has more than 8 entries") for reason in told.values())


def test_the_rules_on_the_page_are_read() -> None:
    (rules,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "meters.md").read_text(), re.DOTALL)
    shipped = (ROOT / "plans" / "catalogs" / "scorpius.toml").read_text()
    meters = parse(shipped + rules, "page.toml").meters
    deep = {"result": {"kind": "deep", "pages": 3}}
    for data, found in ((deep, (("scans", 3), ("api_requests", 1))), ({}, (("scans", 1),))):
        rule = meters.rule_of("scan.finished", data)
        assert rule is not None
        assert measured(rule, data) == found


@pytest.mark.parametrize(("count", "refused"), [(METERS_MAX, False), (METERS_MAX + 1, True)])
def test_a_file_has_only_so_many_rules(count: int, refused: bool) -> None:
    rules = "".join(
        f'[[meters]]\ntype = "t{number}"\nfeatures = [{{ feature = "calls" }}]\n' for number in range(count)
    )
    if refused:
        (fault,) = faults_of(GOOD + rules)
        assert fault.key == "meters"
    else:
        assert len(parse(GOOD + rules, "plans.toml").meters.rules) == count


@pytest.mark.parametrize("odd", ["[3]", "['llm']", "3", "[{ match = 3, type = 't' }]", "[{ match = { '$.a' = [] } }]"])
def test_rules_of_the_wrong_shape_are_told_and_hide_nothing(odd: str) -> None:
    keys = {fault.key.partition(".")[0] for fault in faults_of(f"meters = {odd}\nzzz = 1\n{GOOD}")}
    assert keys == {"meters", "zzz"}
