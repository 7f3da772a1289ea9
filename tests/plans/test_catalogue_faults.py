"""Every way a catalogue file can be bad: the fault names its place, the reason and the cure, all at once."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans.catalogue import CatalogueError, Fault, LeaseExpiry, YearlyPrice, parse
from plans.catalogue_tables import FEATURES_MAX
from plans.subwindows import Per, RateLimit, SubWindow
from plans.tiers import PriceModel, Pricing, Tier
from tests.support.soak import often

GOOD = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features.scans]
title = "Scans"
unit = "scan"
stripe_meter_event = "scans_over"
overage_price_minor = 5
overage_per = 10
[features.calls]
title = "Calls"
unit = "call"
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "block"
price_minor = 0
stripe_price_env = "STRIPE_PRICE_FREE"
[plans.free.features]
scans = { limit = 10, on_limit = "cap", enabled = true }
calls = { limit = "unlimited" }
"""

ODD_VALUES = ["[]", "{}", "[{}]", "[[1]]", "{ limit = [] }", "'x'", "''", "'free'", "0", "-1", "1.5", "nan", "inf"]
ODD_VALUES += ["true", "2024-01-01", "12:30:00", f"0x{'f' * 4000}", "{ a.b = 1 }", "[plans.'[key]']", "[features.x]"]


def faults_of(text: str) -> tuple[Fault, ...]:
    with pytest.raises(CatalogueError) as caught:
        parse(text, "plans.toml")
    assert {fault.file for fault in caught.value.faults} == {"plans.toml"}
    return caught.value.faults


FULL = GOOD.replace("[features.scans]", "[dimensions]\nactor = 9\n[features.scans]\nlease_expiry = 'release'", 1)
FULL = FULL.replace("[plans.free]", "[plans.free]\nrate_limit = { events = 5, per = 'minute', burst = 2 }", 1)
FULL = FULL.replace(
    "price_minor = 0",
    "price_minor = 900\nincludes = ['A', 'B']\n"
    "yearly = { price_minor = 9000, stripe_price_env = 'STRIPE_PRICE_YEARLY' }",
    1,
)
FULL = FULL.replace("enabled = true }", "enabled = true, windows = [{ limit = 5, per = 'hour', rolling = true }] }", 1)


@pytest.mark.parametrize(
    ("before", "after", "key", "reason", "cure"),
    [
        ("actor = 9", "actor = 0", "dimensions.actor", "0 is less than 1", "most values a month"),
        ("actor = 9", "actor = 1001", "dimensions.actor", "is more than 1000", "most values a month"),
        ("actor = 9", "Actor = 9", "dimensions.Actor", "is not a name", "a letter first"),
        ("'release'", "'keep'", "features.scans.lease_expiry", "is not 'charge' or 'release'", "charge or release"),
        ("= 9000,", "= 0,", "plans.free.yearly.price_minor", "0 is less than 1", "minor units (cents) a year"),
        ("price_minor = 9000,", "", "plans.free.yearly.price_minor", "is missing", "minor units (cents) a year"),
        ("'STRIPE_PRICE_YEARLY'", "'price_1'", "plans.free.yearly.stripe_price_env", "wrong form", "environment"),
        ("PRICE_YEARLY'", "PRICE_FREE'", "plans.free.yearly.stripe_price_env", "that of the month", "of the year"),
        (
            "'STRIPE_PRICE_YEARLY'",
            "'STRIPE_PRICE_YEARLY', stripe_price_id = 'price_1'",
            "plans.free.yearly.stripe_price_id",
            "stands beside",
            "Keep one",
        ),
        ("price_minor = 900\n", "price_minor = 0\n", "plans.free.yearly", "beside price_minor = 0", "of the month too"),
        ("= 900\n", "= 'custom'\n", "plans.free.yearly", 'beside price_minor = "custom"', "of the month too"),
        ("yearly =", "yearly_price =", "plans.free.yearly_price", "is not a known key", "Did you mean yearly?"),
        ("['A', 'B']", "['']", "plans.free.includes.0", "'' is empty", "a list of short texts"),
        ("['A', 'B']", "'A'", "plans.free.includes", "'A' is not a list", "a list of short texts"),
        ("events = 5,", "", "plans.free.rate_limit.events", "is missing", "at least 1"),
        ("events = 5", "events = 0", "plans.free.rate_limit.events", "0 is less than 1", "at least 1"),
        ("'minute'", "'year'", "plans.free.rate_limit.per", "'year' is not", "minute, hour, day or week"),
        ("burst = 2", "bursts = 2", "plans.free.rate_limit.bursts", "is not a known key here", "Did you mean burst?"),
        ("limit = 5,", "", "plans.free.features.scans.windows.0.limit", "is missing", "whole number of units"),
        ("limit = 5", "limit = -1", "plans.free.features.scans.windows.0.limit", "-1 is less than 0", "whole number"),
        ("'hour'", "'our'", "plans.free.features.scans.windows.0.per", "'our' is not", "minute, hour, day or week"),
        ("rolling = true", "roling = true", "plans.free.features.scans.windows.0.roling", "is not a known", "rolling"),
        ("[{ limit = 5, per = 'hour', rolling = true }]", "3", "plans.free.features.scans.windows", "", "up to 8"),
    ],
)
def test_what_a_plan_may_also_say_is_told_as_well(before: str, after: str, key: str, reason: str, cure: str) -> None:
    (fault,) = faults_of(FULL.replace(before, after, 1))
    assert fault.key == key
    assert reason in fault.reason
    assert cure in fault.cure


def test_what_a_plan_may_also_say_is_read() -> None:
    catalogue = parse(FULL, "plans.toml")
    assert dict(catalogue.dimensions) == {"actor": 9}
    assert catalogue.features["scans"].lease_expiry is LeaseExpiry.RELEASE
    assert catalogue.features["calls"].lease_expiry is LeaseExpiry.CHARGE
    assert catalogue.plans["free"].rate_limit == RateLimit(5, Per.MINUTE, 2)
    assert catalogue.plans["free"].yearly == YearlyPrice(9000, "STRIPE_PRICE_YEARLY")
    assert catalogue.plans["free"].includes == ("A", "B")
    assert catalogue.plans["free"].rules["scans"].windows == (SubWindow(5, Per.HOUR, rolling=True),)


TIERED = GOOD.replace(
    "overage_price_minor = 5\noverage_per = 10",
    "overage_model = 'graduated'\n"
    "overage_tiers = [{ up_to = 10, price_minor = 5 }, { up_to = 20, price_minor = 9, per = 2 },"
    " { price_minor = 1, flat_minor = 7 }]",
)


def test_tiers_are_read() -> None:
    tiers = (Tier(10, 5), Tier(20, 9, 2), Tier(None, 1, flat_minor=7))
    assert parse(TIERED, "plans.toml").features["scans"].pricing == Pricing(PriceModel.GRADUATED, tiers)
    volume = parse(TIERED.replace("graduated", "volume"), "plans.toml")
    assert volume.features["scans"].pricing == Pricing(PriceModel.VOLUME, tiers)


@pytest.mark.parametrize(("model", "found"), [("flat", PriceModel.FLAT), ("package", PriceModel.PACKAGE)])
def test_one_price_can_name_its_model(model: str, found: PriceModel) -> None:
    named = GOOD.replace("overage_per = 10", f"overage_per = 10\noverage_model = '{model}'")
    assert parse(named, "plans.toml").features["scans"].pricing == Pricing(found, (Tier(None, 5, 10),))
    assert parse(GOOD, "plans.toml").features["calls"].pricing is None


@pytest.mark.parametrize(
    ("text", "before", "after", "key", "reason", "cure"),
    [
        (TIERED, "'graduated'", "'tiered'", "overage_model", "'tiered' is not 'flat'", "graduated or volume"),
        (TIERED, "overage_model = 'graduated'", "", "overage_model", "does not say how", 'Give "graduated"'),
        (TIERED, "'graduated'", "'package'", "overage_model", "does not say how", 'Give "graduated"'),
        (TIERED, "'graduated'", "'graduated'\noverage_per = 5", "overage_per", "beside", "Keep one"),
        (TIERED, "'graduated'", "'volume'\noverage_price_minor = 5", "overage_price_minor", "beside", "Keep one"),
        (TIERED, "up_to = 20", "up_to = 10", "overage_tiers.1.up_to", "not above the tier before", "ascend"),
        (TIERED, "up_to = 10, ", "", "overage_tiers.0.up_to", "is missing", "the last unit of the tier"),
        (TIERED, "{ price_minor = 1,", "{ up_to = 30, price_minor = 1,", "overage_tiers.2.up_to", "last tier", "Leave"),
        (TIERED, "up_to = 10", "up_to = 0", "overage_tiers.0.up_to", "0 is less than 1", "the last unit of the tier"),
        (TIERED, "per = 2", "per = 0", "overage_tiers.1.per", "0 is less than 1", "at least 1"),
        (TIERED, "per = 2", "pre = 2", "overage_tiers.1.pre", "is not a known key here", "Did you mean per?"),
        (TIERED, ", per = 2", ", price = 2", "overage_tiers.1.price", "is not a known key here", "price_minor?"),
        (TIERED, "flat_minor = 7", "flat_minor = -7", "overage_tiers.2.flat_minor", "-7 is less than 0", "minor units"),
        (GOOD, "overage_per = 10", "overage_model = 'volume'", "overage_tiers", "is missing", "up to 50 tables"),
        (GOOD, "overage_price_minor = 5", "overage_model = 'flat'", "overage_price_minor", "is missing", "minor units"),
        (GOOD, "overage_per = 10", "overage_tiers = 3", "overage_tiers", "3", "up to 50 tables"),
    ],
)  # fmt: skip
def test_a_price_that_cannot_be_is_told(text: str, before: str, after: str, key: str, reason: str, cure: str) -> None:
    assert before in text
    (fault,) = faults_of(text.replace(before, after, 1))
    assert fault.key == f"features.scans.{key}"
    assert reason in fault.reason
    assert cure in fault.cure


def test_the_file_all_others_here_are_made_from_is_good() -> None:
    assert parse(GOOD, "plans.toml").plans.keys() == {"free"}


def test_features_without_a_meter_do_not_clash() -> None:
    assert parse(GOOD.replace('stripe_meter_event = "scans_over"', ""), "plans.toml").features.keys() == {
        "scans",
        "calls",
    }


@settings(max_examples=often(500, 8))
@given(st.dictionaries(st.integers(1, GOOD.count("\n") - 1), st.sampled_from(ODD_VALUES), min_size=1, max_size=4))
def test_whatever_stands_behind_a_key_the_answer_is_a_catalogue_or_its_faults(changes: dict[int, str]) -> None:
    lines = GOOD.splitlines()
    for line, value in changes.items():
        key, equals, _ = lines[line].partition(" = ")
        lines[line] = f"{key} = {value}" if equals else f"{value}"
    with suppress(CatalogueError):
        assert parse("\n".join(lines), "plans.toml").plans


@pytest.mark.parametrize(
    ("before", "after", "key", "reason", "cure"),
    [
        # the file itself
        ("version = 1\n", "", "version", "is missing", "raised with every change"),
        ("version = 1", "version = 0", "version", "0 is less than 1", "from 1"),
        ("version = 1", "version = true", "version", "True is not a whole number", "from 1"),
        ("version = 1", "version = 1.0", "version", "1.0 is not a whole number", "from 1"),
        ("version = 1", 'version = "1"', "version", "'1' is not a whole number", "from 1"),
        ("version = 1", f"version = {2**53}", "version", "is more than", "from 1"),
        ("version = 1", f"version = 0x{'f' * 4000}", "version", "this number is more than", "from 1"),
        ("version = 1", "version = 2024-01-01", "version", "is not a whole number", "from 1"),
        ('currency = "usd"\n', "", "currency", "is missing", "ISO 4217"),
        ('"usd"', '"USD"', "currency", "'USD' has the wrong form", "lower case"),
        ('"usd"', '"usd\\n"', "currency", "has the wrong form", "ISO 4217"),
        ('"usd"', "840", "currency", "840 is not text", "ISO 4217"),
        ('default_plan = "free"\n', "", "default_plan", "is missing", "the plan of a new"),
        ('default_plan = "free"', "default_plan = 1", "default_plan", "1 is not text", "plan of a new"),
        ('= "free"', '= "fre"', "default_plan", "'fre' is not in this file", "Did you mean free?"),
        ('= "free"', '= "gold"', "default_plan", "'gold' is not in this file", "Give one of: free."),
        ('default_feature = "scans"\n', "", "default_feature", "is missing", "events which name none"),
        ('feature = "scans"', 'feature = "scan"', "default_feature", "'scan' is not in", "Did you mean scans?"),
        ("version", 'currencies = "x"\nversion', "currencies", "is not a known key", "Did you mean currency?"),
        ("version", "zzz = 1\nversion", "zzz", "is not a known key", "Remove it"),
        ("version", '"a b" = 1\nversion', '"a b"', "is not a known key", "Remove it"),
        # features
        ("[plans.free]", "[features.A]\ntitle='A'\nunit='a'\n[plans.free]", "features.A", "is not a name", "a-z"),
        ("[plans.free]", "[features.1]\ntitle='A'\nunit='a'\n[plans.free]", "features.1", "is not a name", "a-z"),
        (
            "[plans.free]",
            "[features.'a:b']\ntitle='A'\nunit='a'\n[plans.free]",
            'features."a:b"',
            "is not a name",
            "a-z",
        ),
        (
            "[plans.free]",
            f"[features.{'a' * 65}]\ntitle='A'\nunit='a'\n[plans.free]",
            f"features.{'a' * 65}",
            "is not a name",
            "at most 64",
        ),
        ('title = "Scans"\n', "", "features.scans.title", "is missing", "a short text"),
        ('title = "Scans"', 'title = ""', "features.scans.title", "'' is empty", "a short text"),
        ('"Scans"', f'"{"s" * 101}"', "features.scans.title", "is longer than 100", "a short text"),
        ('unit = "scan"\n', "", "features.scans.unit", "is missing", "the word for one unit"),
        ('"scans_over"', "7", "features.scans.stripe_meter_event", "7 is not text", "Stripe meter"),
        ('"scans_over"', '""', "features.scans.stripe_meter_event", "is empty", "Stripe meter"),
        (
            'unit = "call"',
            'unit = "call"\nstripe_meter_event = "scans_over"',
            "features.calls.stripe_meter_event",
            "'scans_over' is the meter of scans already",
            "its own meter",
        ),
        ("minor = 5", "minor = -5", "features.scans.overage_price_minor", "-5 is less than 0", "minor units"),
        ("minor = 5", "minor = 0.5", "features.scans.overage_price_minor", "0.5 is not a whole", "minor units"),
        ("per = 10", "per = 0", "features.scans.overage_per", "0 is less than 1", "at least 1"),
        (
            "overage_price_minor",
            "overage_price",
            "features.scans.overage_price",
            "is not a known key",
            "Did you mean overage_price_minor?",
        ),
        # plans
        ('title = "Free"\n', "", "plans.free.title", "is missing", "a short text"),
        ('reset = "calendar"\n', "", "plans.free.reset", "is missing", "calendar or anniversary"),
        ('"calendar"', '"monthly"', "plans.free.reset", "'monthly' is not 'calendar' or", "calendar or"),
        ('"calendar"', "1", "plans.free.reset", "1 is not 'calendar' or", "calendar or"),
        ('on_limit = "block"\n', "", "plans.free.on_limit", "is missing", "overage, block or cap"),
        ('"block"', '"stop"', "plans.free.on_limit", "'stop' is not 'overage', 'block' or", "overage, block"),
        ("price_minor = 0\n", "", "plans.free.price_minor", "is missing", '"custom"'),
        ("price_minor = 0", "price_minor = -1", "plans.free.price_minor", "-1 is not", '"custom"'),
        ("price_minor = 0", "price_minor = 9.99", "plans.free.price_minor", "9.99 is not", "minor units"),
        ("price_minor = 0", "price_minor = false", "plans.free.price_minor", "False is not", '"custom"'),
        ("price_minor = 0", 'price_minor = "free"', "plans.free.price_minor", "'free' is not", '"custom"'),
        ('"STRIPE_PRICE_FREE"', '"price_1"', "plans.free.stripe_price_env", "wrong form", "environment"),
        ("stripe_price_env", "stripe_price_id", "plans.free.stripe_price_id", "wrong form", "price_..."),
        (
            'env = "STRIPE_PRICE_FREE"',
            'env = "STRIPE_PRICE_FREE"\nstripe_price_id = "price_1"',
            "plans.free.stripe_price_id",
            "stands beside stripe_price_env",
            "Keep one",
        ),
        ("[plans.free]", "[plans.Gold]\n[plans.free]", "plans.Gold", "is not a name", "a-z"),
        ("[plans.free]", "[plans.'a|b']\n[plans.free]", 'plans."a|b"', "is not a name", "a letter first"),
        ("reset =", "resets =", "plans.free.resets", "is not a known key", "Did you mean reset?"),
        ("[plans.free]", "[plans]\ngold = 3\n[plans.free]", "plans.gold", "3 is not a table", "[plans.<name>]"),
        # what a plan says of a feature
        (
            'calls = { limit = "unlimited" }\n',
            "",
            "plans.free.features.calls",
            "is missing",
            "Add calls = { limit =",
        ),
        ("calls = {", "call = {", "plans.free.features.call", "is not a feature", "Did you mean calls?"),
        ("calls = {", "tokens = {", "plans.free.features.tokens", "is not a feature", "Add the feature"),
        ('calls = { limit = "unlimited" }', "calls = 5", "plans.free.features.calls", "5 is not a table", "entry"),
        ('{ limit = "unlimited" }', "{}", "plans.free.features.calls.limit", "is missing", '"unlimited"'),
        ("limit = 10,", "", "plans.free.features.scans.limit", "is missing", "whole number of units"),
        ("limit = 10", "limit = -1", "plans.free.features.scans.limit", "-1 is not", '"unlimited"'),
        ("limit = 10", "limit = 1.5", "plans.free.features.scans.limit", "1.5 is not", "whole number"),
        ("limit = 10", "limit = true", "plans.free.features.scans.limit", "True is not", "whole number"),
        ("limit = 10", 'limit = "no"', "plans.free.features.scans.limit", "'no' is not", '"unlimited"'),
        ("limit = 10", f"limit = {9 * 10**13 + 1}", "plans.free.features.scans.limit", "90000000000001 is", "whole"),
        ('"cap"', '"caps"', "plans.free.features.scans.on_limit", "'caps' is not 'overage', 'block'", "plan's"),
        ("enabled = true", "enabled = 1", "plans.free.features.scans.enabled", "1 is not true or", "true"),
        ("enabled = true", "enable = true", "plans.free.features.scans.enable", "not a known key", "enabled?"),
        ('"unlimited" }', '"unlimited", x = 1 }', "plans.free.features.calls.x", "not a known key", "Remove it"),
    ],
)
def test_a_bad_file_is_refused_with_key_reason_and_cure(
    before: str, after: str, key: str, reason: str, cure: str
) -> None:
    assert before in GOOD
    told = [fault for fault in faults_of(GOOD.replace(before, after, 1)) if fault.key == key]
    assert len(told) == 1
    assert reason in told[0].reason
    assert cure in told[0].cure


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("version = 1\nversion = 2\n", "line 2", "Cannot overwrite a value"),
        ("version = 1\n\ncurrency = usd\n", "line 3", "Invalid value"),
        ("version 1", "line 1", "Expected '='"),
        ("version = 1\nplans = [", "line 2", "Invalid value"),
        ('version = 1\nname = "', "line 2", "Unterminated string"),
        (f"version = {'9' * 5000}", "file", "4300 digits"),
        (f"version = {'[' * 20_000}", "file", "nested too deeply"),
    ],
)
def test_a_text_that_is_no_toml_is_refused_with_its_line(text: str, key: str, reason: str) -> None:
    (fault,) = faults_of(text)
    assert fault.key == key
    assert reason in fault.reason
    assert "Correct the TOML there" in fault.cure


def test_all_faults_are_told_at_once_and_each_once() -> None:
    text = (
        GOOD.replace("version = 1", "version = 0")
        .replace('"free"', '"fre"')
        .replace('unit = "call"', "units = 1")
        .replace("limit = 10", "limit = -1")
        .replace('"cap"', '"caps"')
        .replace("calls = {", "call = {")
    )
    assert sorted(fault.key for fault in faults_of(text)) == [
        "default_plan",
        "features.calls.unit",
        "features.calls.units",
        "plans.free.features.call",
        "plans.free.features.calls",
        "plans.free.features.scans.limit",
        "plans.free.features.scans.on_limit",
        "version",
    ]


@pytest.mark.parametrize("table", ["features", "plans"])
def test_a_table_of_the_wrong_shape_does_not_hide_the_faults_of_others(table: str) -> None:
    text = f"version = 0\ncurrency = 'usd'\ndefault_plan = 'a'\ndefault_feature = 'a'\n{table} = 3\n"
    keys = {fault.key for fault in faults_of(text)}
    assert keys == {"version", "features", "plans", "default_plan", "default_feature"}


def test_an_empty_file_misses_every_key() -> None:
    assert {(fault.key, fault.reason) for fault in faults_of("")} == {
        (key, "is missing") for key in ("version", "currency", "default_plan", "default_feature", "features", "plans")
    }


def test_empty_tables_are_refused_because_the_defaults_are_in_none() -> None:
    text = "version = 1\ncurrency = 'usd'\ndefault_plan = 'a'\ndefault_feature = 'a'\n[plans]\n[features]\n"
    told = {fault.key: fault.cure for fault in faults_of(text)}
    assert told == dict.fromkeys(("default_plan", "default_feature"), "Give one of: (there is none yet).")


def test_a_fault_shows_a_long_value_cut_short() -> None:
    (fault,) = faults_of(GOOD.replace('"usd"', f'"{"u" * 5000}"'))
    assert len(fault.reason) < 100


def test_a_fault_is_one_line_with_file_key_reason_and_cure() -> None:
    (fault,) = faults_of(GOOD.replace('"usd"', '"u\\nd"'))
    assert str(fault) == (
        "plans.toml: currency: 'u\\nd' has the wrong form. Give an ISO 4217 code in lower case, such as \"usd\"."
    )


@pytest.mark.parametrize(("count", "refused"), [(FEATURES_MAX, False), (FEATURES_MAX + 1, True)])
def test_a_catalogue_has_only_as_many_features_as_a_script_can_handle(count: int, refused: bool) -> None:
    """The script passes all of an organisation's fields at once; one feature more than the bound is a fault."""
    names = [f"feature_{number}" for number in range(count)]
    lines = ["version = 1", 'currency = "usd"', 'default_plan = "free"', f'default_feature = "{names[0]}"']
    lines += [f'[features.{name}]\ntitle = "{name}"\nunit = "unit"' for name in names]
    lines += ['[plans.free]\ntitle = "Free"\nreset = "calendar"\non_limit = "block"\nprice_minor = 0']
    lines += ["[plans.free.features]", *(f"{name} = {{ limit = 1 }}" for name in names)]
    text = "\n".join(lines)
    if refused:
        with pytest.raises(CatalogueError, match="more than"):
            parse(text, "big.toml")
    else:
        assert len(parse(text, "big.toml").features) == count
