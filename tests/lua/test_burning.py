"""Which grants a burn takes credits from: the script against `plans/credits.py`, over pools of every sort."""

import random
from typing import Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.calls import CallMaker
from metering.store.correction import By, Change, adjustment
from metering.store.frames import day_text
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.store.scripts import script
from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Override
from plans.credits import Cover, Grant, burnt, cover
from plans.limits import OnLimit
from tests.lua.granting import burned_of, give, lines_of, pool_of, texts_of
from tests.lua.ledger import Ledger
from tests.lua.raw import COUNTED, frame_of, pending, words_of
from tests.support.servers import StoreServer
from tests.support.soak import SEED

POOLS: Final = 80
DAY_MS: Final = 86_400_000
INCLUDED: Final = 10


def drawn(chance: random.Random, now_ms: int) -> list[Grant]:
    """Some grants: of all priorities and expiries, small ones, for one feature or all, some of them of no use now."""
    return [
        Grant(
            f"cg_{seq}", chance.randint(1, 7), seq, chance.choice((0, 50, 50, 100)),
            now_ms + chance.choice((-DAY_MS, -DAY_MS, -DAY_MS, DAY_MS)),
            chance.choice((None, None, now_ms - 1000, now_ms + DAY_MS // 2, now_ms + 2 * DAY_MS)),
            chance.choice(("", "", "scans", "checks")), chance.random() < 0.15, chance.choice((0, 0, 2)),
        )
        for seq in range(1, chance.randint(2, 7))
    ]  # fmt: skip


async def spent(ledger: Ledger, org_id: str, feature: str, quantity: int) -> Outcome:
    """Count units of an organisation that has used all that is included."""
    return await ledger.callers[0].counters.track(UsageEvent(org_id, feature, quantity))


async def test_each_unit_is_paid_by_whom_the_law_says(store: StoreServer) -> None:
    chance, met = random.Random(SEED), set()
    async with Ledger(store.url, callers=1) as ledger:
        for number in range(POOLS):
            org_id = f"org-{number}"
            feature, weight = chance.choice((("scans", 2), ("checks", 3), ("calls", None)))
            used = INCLUDED - chance.choice((0, 0, 1, 3))
            await spent(ledger, org_id, feature, used)
            now_ms = await ledger.now_ms()
            grants, debt, quantity = drawn(chance, now_ms), chance.choice((0, 0, 1, 4)), chance.randint(1, 9)
            await give(ledger, org_id, *grants, debt=debt)
            outcome = await spent(ledger, org_id, feature, quantity)
            paid = cover(grants, feature, weight, now_ms, debt=debt)
            above = max(0, used + quantity - INCLUDED)
            todo = min(above, paid.units)
            if feature == "checks" and above > paid.units:
                todo = 0
            expected = burnt(grants, feature, paid, todo, now_ms)
            assert await burned_of(ledger, org_id) == {(feature, name): n for name, n in expected.items()}, SEED
            assert outcome.credits_used == sum(expected.values())
            assert outcome.overage == (above - todo if feature == "scans" else 0)
            met.add((feature, outcome.result, _kinds(paid, expected, grants)))
        report = await ledger.walk()
        assert not report.violations, "\n".join(map(str, report.violations))
    assert len(met) > 8, met


def _kinds(paid: Cover, expected: dict[str, int], grants: list[Grant]) -> tuple[bool, int]:
    scopes = {one.grant_id: one.scope for one in grants}
    return paid.own > 0, len({scopes[name] for name in expected})


async def test_a_refusal_tells_what_could_have_been_used(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        for org_id in ("poor", "some", "own"):
            await spent(ledger, org_id, "checks", INCLUDED)
        await give(ledger, "some", Grant("cg_1", 8, 1), Grant("cg_2", 5, 2, scope="scans"), debt=1)
        await give(ledger, "own", Grant("cg_1", 2, 1, scope="checks"))
        told = {org_id: (await spent(ledger, org_id, "checks", 9)).credits_left for org_id in ("poor", "some", "own")}
        assert told == {"poor": 0, "some": 7, "own": 2}
        await spent(ledger, "poor", "calls", INCLUDED)
        refused = await spent(ledger, "poor", "calls", 1)
        assert (refused.result, refused.credits_left) == (Result.REFUSED, None)


async def test_what_expired_is_written_with_the_next_burn(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        await spent(ledger, "acme", "scans", INCLUDED)
        now_ms = await ledger.now_ms()
        await give(
            ledger, "acme",
            Grant("cg_1", 9, 1, effective_ms=now_ms - DAY_MS, expires_ms=now_ms + DAY_MS),
            Grant("cg_2", 9, 2, effective_ms=now_ms - DAY_MS, expires_ms=now_ms + DAY_MS, rollover=4),
            Grant("cg_3", 9, 3), low=20,
        )  # fmt: skip
        await ledger.jump_to(now_ms + DAY_MS)
        assert (await spent(ledger, "acme", "scans", 3)).credits_used == 6
        left = {
            one.grant_id: (one.left, one.expires_ms, one.rollover) for one in (await pool_of(ledger, "acme")).grants
        }
        assert left == {"cg_3": (7, None, 0)}  # the four that went on were the next to expire
        lines = [(line["type"], line["grant"], line["credits"]) for line in await lines_of(ledger, "acme")]
        assert sorted(lines) == [
            ("expired", "cg_1", "9"), ("expired", "cg_2", "5"), ("low", "", "20"), ("rolled_over", "cg_2", "4"),
        ]  # fmt: skip
        grants = await texts_of(ledger, ledger.keys.grants("acme"))
        assert (grants["cg_1|x"], grants["cg_2|x"]) == ("9", "5")
        assert await ledger.client.zscore(ledger.keys.shared("lapsing", ledger.keys.partition("acme")), "acme") is None
        assert await ledger.client.zscore(ledger.keys.shared("topups", ledger.keys.partition("acme")), "acme")
        assert not (await ledger.walk()).violations


async def test_a_repeat_without_an_id_tells_the_credits_again(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        await spent(ledger, "acme", "scans", INCLUDED)
        await give(ledger, "acme", Grant("cg_1", 9, 1))
        caller = ledger.callers[0]
        minted = pending("acme", "scans", "2")
        minted.shard = None
        frame = await frame_of(ledger, caller, "acme")
        caller.time.learn(await ledger.now_ms())
        maker = CallMaker("0" * 40, ledger.keys, caller.time, Retention())
        words = words_of(maker.make([(frame, [minted])]).payload)[2:]
        replies = [await ledger.client.execute_command("EVAL", script("track").text, *words) for _ in range(2)]
        assert [reply[1:] for reply in replies] == [[COUNTED, INCLUDED + 2, 0, 4]] * 2
        assert await burned_of(ledger, "acme") == {("scans", "cg_1"): 4}


async def test_holds_keep_the_credits_that_they_may_need(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        caller = ledger.callers[0]
        blocks = OrgChange(overrides={"scans": Override(on_limit=OnLimit.BLOCK)})
        await spent(ledger, "acme", "scans", INCLUDED)
        await caller.orgs.update("acme", blocks, actor="ann", create=False)
        await spent(ledger, "acme", "checks", INCLUDED - 1)
        await give(ledger, "acme", Grant("cg_1", 12, 1))
        await caller.holds.place("acme", "r1", "checks", 3, 60_000)  # one included, two of three credits each
        refused = await spent(ledger, "acme", "scans", 4)
        assert (refused.result, refused.credits_left) == (Result.REFUSED, 6)
        own, _ = await caller.holds.place("acme", "r2", "checks", 3, 60_000)
        assert own is None  # the same credits are not kept twice
        assert (await spent(ledger, "acme", "scans", 3)).credits_used == 6
        _, _, outcome = await caller.holds.settle("acme", "r1", 3)
        assert (outcome.recorded, outcome.overage, outcome.credits_used) == (3, 0, 6)
        assert not (await pool_of(ledger, "acme")).grants
        assert not (await ledger.walk()).violations


async def test_features_that_are_counted_together_share_the_pool_or_none_is(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        for feature in ("scans", "checks"):
            await spent(ledger, "acme", feature, INCLUDED)
        await give(ledger, "acme", Grant("cg_1", 8, 1))
        counters = ledger.callers[0].counters
        refused = await counters.track(UsageEvent("acme", "scans", 2, "e1", also=(("checks", 2),)))
        assert (refused.result, refused.feature, refused.credits_left) == (Result.REFUSED, "checks", 4)
        assert await burned_of(ledger, "acme") == {}
        trial = await counters.track(UsageEvent("acme", "scans", 2, also=(("checks", 1),), dry_run=True))
        assert [one.credits_used for one in (trial, *trial.others)] == [4, 3]
        assert await burned_of(ledger, "acme") == {}
        counted = await counters.track(UsageEvent("acme", "scans", 2, "e1", also=(("checks", 1),)))
        assert [one.credits_used for one in (counted, *counted.others)] == [4, 3]
        assert await burned_of(ledger, "acme") == {("scans", "cg_1"): 4, ("checks", "cg_1"): 3}


async def test_a_closed_period_keeps_what_credits_paid_for_and_the_pool_stays(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        await spent(ledger, "acme", "scans", INCLUDED)
        await give(ledger, "acme", Grant("cg_1", 9, 1))
        await spent(ledger, "acme", "scans", 2)
        before = await ledger.callers[0].orgs.get("acme")
        assert before is not None
        assert (before.features["scans"].credit, before.pool) == (2, True)
        await ledger.jump_to(before.period.end_ms)
        after = await ledger.callers[0].orgs.get("acme")
        assert after is not None
        assert (after.features["scans"].credit, after.pool) == (0, True)
        archive = await texts_of(ledger, ledger.keys.archive("acme", before.period.start_ms))
        assert archive["a:scans"] == "2"
        assert [one.left for one in (await pool_of(ledger, "acme")).grants] == [5]


JUNK: Final = (
    ("HSET", "y", "cg_1", "many"),
    ("HSET", "y", "debt", "-1"),
    ("HSET", "j", "<day>|scans|cg_1", "many"),
    ("HSET", "o", "a:scans", "many"),
    ("HSET", "o", "v:scans", "many"),
    ("SET", "t", "a stream that is none"),
    ("SET", "s", "a hash that is none"),
)


async def used_again(ledger: Ledger, kind: str) -> None:
    """Five more scans, by each of the scripts."""
    caller = ledger.callers[0]
    if kind == "adjust":
        asked = adjustment(
            "acme", Change("scans", 5), "a1", By("ann", "", ""), minted=False, period_ms=None, at_ms=None
        )
        await caller.corrections.make(asked)
    else:
        also = (("checks", 1),) if kind == "admit" else ()
        await caller.counters.track(UsageEvent("acme", "scans", 5, "e9", also=also))


@pytest.mark.parametrize("kind", ["track", "admit", "adjust"])
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: " ".join(junk[:3]))
async def test_credits_that_no_script_wrote_stop_their_organisation_and_nothing_is_written(
    store: StoreServer, junk: tuple[str, ...], kind: str
) -> None:
    async with Ledger(store.url, callers=1, partitions=1) as ledger:
        await spent(ledger, "acme", "scans", INCLUDED)
        await give(ledger, "acme", Grant("cg_1", 90, 1))
        await spent(ledger, "acme", "scans", 1)
        today = day_text(await ledger.now_ms() // DAY_MS)
        command, letter, *words = (word.replace("<day>", today) for word in junk)
        key = f"{{p00}}:{letter}:acme"
        if command == "SET":
            await ledger.client.delete(key)
        await ledger.client.execute_command(command, key, *words)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await used_again(ledger, kind)
        assert await ledger.dump() == before
