"""The claim: what one string proves, and how the tiers behind it grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.store.claim import SHARD_IDS, TIERS, Claim, shards_of, tier_for

CLAIM = Claim(1709251200000, "202402", "048", "04", 17, 3)


def test_the_text_of_a_claim_never_changes() -> None:
    assert CLAIM.text() == "1709251200000:32:202402:048:04:17.3"


def test_a_claim_without_a_month_before_says_so() -> None:
    assert Claim(1709251200000, "202402", "0", "", 0, 1).text() == "1709251200000:10:202402:0::0.1"


@given(
    st.builds(
        Claim,
        valid_until_ms=st.integers(0, 2**47),
        month=st.dates().map(lambda day: f"{day.year:04}{day.month:02}"),
        tiers=st.integers(1, len(TIERS)).map(lambda count: TIERS[:count]),
        tiers_before=st.integers(0, len(TIERS)).map(lambda count: TIERS[:count]),
        revision=st.integers(0, 2**53),
        catalogue=st.integers(1, 2**31),
    )
)
def test_a_claim_is_read_back_as_it_was_written(claim: Claim) -> None:
    assert Claim.parse(claim.text()) == claim


@pytest.mark.parametrize(
    "text", ["", "1:10:202402:0::5", "1:10:202402:0:5.1", "x:10:202402:0::5.1", "1:10:202402:0::5.x", "1:2"]
)
def test_a_text_that_is_no_claim_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        Claim.parse(text)


@pytest.mark.parametrize(
    ("tiers", "grown"),
    [("0", "04"), ("04", "048"), ("048", "048c"), ("8", "8c"), ("048cg", "048cgk"), ("048cgk", "048cgk")],
)
def test_tiers_grow_by_one_step_until_the_last(tiers: str, grown: str) -> None:
    assert Claim(0, "202402", tiers, "", 0, 1).grown() == grown


@pytest.mark.parametrize(("tier", "shards"), [("0", 1), ("4", 16), ("8", 256), ("c", 4096), ("g", 65536)])
def test_a_tier_has_two_to_its_letter_shards(tier: str, shards: int) -> None:
    assert shards_of(tier) == shards


@pytest.mark.parametrize(
    ("ids", "tier"),
    [
        (0, "0"),
        (SHARD_IDS, "0"),
        (SHARD_IDS + 1, "4"),
        (16 * SHARD_IDS, "4"),
        (16 * SHARD_IDS + 1, "8"),
        (256 * SHARD_IDS + 1, "c"),
        (10**12, "k"),
    ],
)
def test_a_month_begins_with_the_smallest_tier_that_holds_the_ids_of_the_last(ids: int, tier: str) -> None:
    assert tier_for(ids) == tier
