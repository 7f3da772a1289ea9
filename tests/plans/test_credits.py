"""What credits pay for, held against an oracle that pays one unit after the other."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.credits import (
    POOL,
    Cover,
    Grant,
    Normalised,
    Standing,
    balance,
    burnt,
    cover,
    in_burn_order,
    normalised,
    reserved,
    usable,
)

NOW = 1000


def grant(name: str, left: int, **more: object) -> Grant:
    seq = int(name[1:])
    return replace(Grant(name, left, seq), **more)  # type: ignore[arg-type]


def one_by_one(grants: list[Grant], feature: str, weight: int | None, units: int, spoken_for: int) -> dict[str, int]:
    """Credits by grant where each unit looks for who pays it: the first in order that can, whole."""
    left = {one.grant_id: one.left for one in usable(grants, NOW)}
    scopes = {one.grant_id: one.scope for one in grants}
    taken: dict[str, int] = {}
    for _ in range(units):
        pooled = sum(n for name, n in left.items() if scopes[name] == POOL) - spoken_for
        able = {feature: 1} | ({POOL: weight} if weight and pooled >= weight else {})
        first = next((name for name in left if left[name] and scopes[name] in able), None)
        if first is None:
            break
        todo = able[scopes[first]]
        for payer in [first] if scopes[first] == feature else [name for name in left if scopes[name] == POOL]:
            take = min(todo, left[payer])
            todo, left[payer], taken[payer] = todo - take, left[payer] - take, taken.get(payer, 0) + take
    return {name: burned for name, burned in taken.items() if burned}


INSTANTS = st.sampled_from([0, 500, NOW, 1500])


@st.composite
def pools(draw: st.DrawFn) -> list[Grant]:
    return [
        Grant(
            f"g{seq}",
            draw(st.integers(0, 9)),
            seq,
            priority=draw(st.sampled_from([0, 50, 100])),
            effective_ms=draw(INSTANTS),
            expires_ms=draw(st.sampled_from([None, None, NOW, NOW + 1, 1600, 3000])),
            scope=draw(st.sampled_from([POOL, POOL, "scans", "pages"])),
            frozen=draw(st.sampled_from([False, False, True])),
            rollover=draw(st.sampled_from([0, 0, 3])),
        )
        for seq in draw(st.permutations(range(6)))
    ]


@given(pools(), st.sampled_from([None, 1, 2, 3, 7]), st.integers(0, 40), st.integers(0, 9), st.integers(0, 9))
def test_units_are_paid_as_if_they_came_one_by_one(
    grants: list[Grant], weight: int | None, units: int, debt: int, kept: int
) -> None:
    paid = cover(grants, "scans", weight, NOW, debt=debt, reserved=kept)
    taken = burnt(grants, "scans", paid, min(units, paid.units), NOW)
    assert taken == one_by_one(grants, "scans", weight, units, debt + kept)
    of_scope = {one.grant_id: one.scope for one in grants}
    own = sum(burned for name, burned in taken.items() if of_scope[name] == "scans")
    pooled = sum(burned for name, burned in taken.items() if of_scope[name] == POOL)
    assert own + pooled // (weight or 1) == min(units, paid.units)
    assert pooled % (weight or 1) == 0
    assert list(taken) == [one.grant_id for one in usable(grants, NOW) if one.grant_id in taken]


@given(pools())
def test_what_is_used_up_first(grants: list[Grant]) -> None:
    ordered = in_burn_order(grants)
    assert sorted(one.seq for one in ordered) == sorted(one.seq for one in grants)
    for one, other in itertools.pairwise(ordered):
        assert one.priority <= other.priority
        if one.priority == other.priority:
            assert (one.expires_ms or 10**18) <= (other.expires_ms or 10**18)
            assert one.expires_ms != other.expires_ms or one.seq < other.seq


@pytest.mark.parametrize(
    ("found", "becomes"),
    [
        (grant("g1", 9), Normalised(grant("g1", 9))),
        (grant("g1", 9, expires_ms=NOW + 1), Normalised(grant("g1", 9, expires_ms=NOW + 1))),
        (grant("g1", 9, expires_ms=NOW), Normalised(grant("g1", 0, expires_ms=NOW), 9)),
        (
            grant("g1", 9, effective_ms=400, expires_ms=800, rollover=4),
            Normalised(grant("g1", 4, effective_ms=400, expires_ms=1200), 5, 4),
        ),
        (
            grant("g1", 3, effective_ms=400, expires_ms=800, rollover=4),
            Normalised(grant("g1", 3, effective_ms=400, expires_ms=1200), 0, 3),
        ),
        # The second span is over too.
        (
            grant("g1", 9, effective_ms=600, expires_ms=800, rollover=4),
            Normalised(grant("g1", 0, effective_ms=600, expires_ms=800), 9),
        ),
    ],
)
def test_a_grant_at_its_expiry(found: Grant, becomes: Normalised) -> None:
    assert normalised(found, NOW) == becomes


@given(pools())
def test_nothing_is_lost_at_an_expiry_and_it_happens_once(grants: list[Grant]) -> None:
    for one in grants:
        found = normalised(one, NOW)
        assert found.grant.left + found.expired == one.left
        assert normalised(found.grant, NOW).grant.left == found.grant.left


@pytest.mark.parametrize(
    "one",
    [
        grant("g1", 0),
        grant("g1", 5, frozen=True),
        grant("g1", 5, effective_ms=NOW + 1),
        grant("g1", 5, expires_ms=NOW),
        grant("g1", 5, scope="pages"),
    ],
)
def test_what_pays_for_nothing(one: Grant) -> None:
    assert cover([one], "scans", 1, NOW).units == 0


def test_who_pays_for_what() -> None:
    pool, own = grant("g1", 5), grant("g2", 5, scope="scans")
    assert [one.pays_for("scans", None) for one in (pool, own)] == [False, True]
    assert [one.pays_for("pages", 2) for one in (pool, own)] == [True, False]
    assert cover([pool, own], "scans", None, NOW) == Cover(5, 5, None)
    assert cover([pool, own], "scans", 2, NOW).units == 5 + 2
    assert balance([pool, own], NOW, debt=3) == 7
    assert balance([pool], NOW, debt=8) == -3


def test_a_unit_may_be_paid_out_of_two_grants_but_never_in_part() -> None:
    grants = [grant("g1", 3), grant("g2", 9, scope="scans"), grant("g3", 2)]
    paid = cover(grants, "scans", 2, NOW)
    assert (paid.own, paid.credits, paid.units) == (9, 5, 11)
    assert burnt(grants, "scans", paid, 3, NOW) == {"g1": 3, "g2": 1, "g3": 1}
    assert burnt(grants, "scans", paid, 11, NOW) == {"g1": 3, "g2": 9, "g3": 1}


def test_what_holds_keep_of_the_pool() -> None:
    counters = {
        "scans": Standing(10, 8, 5, weight=2),  # three units above the limit
        "pages": Standing(10, 12, 4, weight=3, own=1),  # all four, one of them paid for by its own grant
        "mails": Standing(None, 5, 5, weight=9),
        "faxes": Standing(10, 2, 1, weight=9),
    }
    assert reserved(counters, "mails") == 3 * 2 + 3 * 3
    assert reserved(counters, "scans") == 3 * 3
    assert reserved(counters, "pages") == 3 * 2
