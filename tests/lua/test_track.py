"""track.lua by its header: every code it can answer, and that nothing is written where nothing was counted."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from metering.store.fields import FieldCodec
from metering.store.frames import Frame, day_text
from metering.store.orgs import OrgChange
from metering.usage import Result
from plans.periods import Period
from tests.lua.ledger import Caller, Ledger
from tests.lua.raw import frame_of
from tests.lua.scenes import DAY_MS, MINUTE_MS, ask, calm, event, lawful, move_to, send, waiting, words
from tests.support.servers import StoreServer

STALE: Final = 7
SKEW_MS: Final = 61_000
TOTAL_MAX: Final = 2**53 - 1


@dataclass(slots=True)
class Scene:
    """An organisation `acme` that has counted scans, and the frame a caller has of it."""

    ledger: Ledger
    caller: Caller
    frame: Frame

    async def ask(
        self, quantity: str = "1", *, feature: str = "scans", digest: int = 7, content: int = 70
    ) -> list[int]:
        """The reply to one event of acme."""
        one = waiting("acme", quantity, digest=digest, content=content, feature=feature)
        return await ask(self.ledger, self.caller, (self.frame, [one]))


async def scene(ledger: Ledger, used: int = 3) -> Scene:
    """Make it: `used` scans are counted, digest 5 with content 50 among them."""
    caller = ledger.callers[0]
    made = Scene(ledger, caller, await frame_of(ledger, caller, "acme"))
    assert (await made.ask(str(used), digest=5, content=50))[1] & 15 == 1
    made.frame = await frame_of(ledger, caller, "acme")
    return made


Act = Callable[[Scene], Awaitable[list[int]]]


async def duplicate(at: Scene) -> list[int]:
    return await at.ask("3", digest=5, content=50)


async def conflict(at: Scene) -> list[int]:
    return await at.ask("4", digest=5, content=51)


async def refused(at: Scene) -> list[int]:
    return await at.ask("11", feature="checks")


async def bad_quantity(at: Scene) -> list[int]:
    return await at.ask("1.5")


async def unknown_feature(at: Scene) -> list[int]:
    return await at.ask(feature="unknown")


async def disabled(at: Scene) -> list[int]:
    return await at.ask(feature="closed")


async def corrupt(at: Scene) -> list[int]:
    await at.ledger.client.hset(at.ledger.keys.record("acme"), "u:scans", "many")
    return await at.ask()


async def no_organisation(at: Scene) -> list[int]:
    org = replace(at.frame.org, org_id="nobody")
    frame = Frame(org, at.ledger.keys, FieldCodec(), creates=False)
    return await ask(at.ledger, at.caller, (frame, [waiting("nobody", digest=7)]))


async def other_claim(at: Scene) -> list[int]:
    await at.ledger.callers[1].orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
    return await at.ask()


async def claim_run_out(at: Scene) -> list[int]:
    await move_to(at.ledger, at.frame.org.claim.valid_until_ms)
    return await at.ask()


async def before_the_period(at: Scene) -> list[int]:
    later = await at.ledger.now_ms() + MINUTE_MS
    org = replace(at.frame.org, period=Period(later, at.frame.period.end_ms))
    at.frame = Frame(org, at.ledger.keys, FieldCodec(), creates=False)
    return await at.ask()


async def shard_full(at: Scene) -> list[int]:
    shard = at.ledger.keys.seen("acme", at.frame.org.claim.month, "0", 0)
    await at.ledger.client.sadd(shard, *range(1000, 1401))
    return await at.ask(digest=20)


async def other_test_clock(at: Scene) -> list[int]:
    at.caller.time.test_offset_ms = at.ledger.offset_ms - 1
    return await at.ask()


async def other_minute(at: Scene) -> list[int]:
    at.caller.time.learn(await at.ledger.now_ms() + MINUTE_MS)
    return await ask(at.ledger, at.caller, (at.frame, [waiting("acme")]))


ANSWERS_WITHOUT_A_TRACE: Final = (
    (duplicate, [2, 3, 0]),
    (conflict, [3, 3, 0]),
    (refused, [4, 0, 0]),
    (bad_quantity, [6, 0, 0]),
    (unknown_feature, [8, 0, 0]),
    (disabled, [9, 0, 0]),
    (corrupt, [10, 0, 0]),
    (no_organisation, [STALE, 1, 0]),
    (other_claim, [STALE, 2, 0]),
    (claim_run_out, [STALE, 3, 0]),
    (before_the_period, [STALE, 4, 0]),
    (shard_full, [STALE, 5, 0]),
    (other_test_clock, [STALE, 6, 0]),
    (other_minute, [STALE, 7, 0]),
)


class Watched:
    """A ledger's client that remembers the data set as it was before the last script."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._client = ledger, ledger.client
        self.before: dict[str, bytes] = {}

    async def execute_command(self, *arguments: object) -> object:
        """Dump, then run."""
        self._ledger.client = self._client
        self.before = await self._ledger.dump()
        return await self._client.execute_command(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


@pytest.mark.parametrize(("act", "expected"), ANSWERS_WITHOUT_A_TRACE, ids=lambda value: getattr(value, "__name__", ""))
async def test_an_event_that_is_not_counted_has_its_code_and_leaves_no_trace(
    each_store: StoreServer, act: Act, expected: list[int]
) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        ledger.client = watched = Watched(ledger)
        assert (await act(at))[1:] == expected
        assert await ledger.dump() == watched.before


async def test_a_counted_event_has_code_1_and_its_overage(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger, used=10)
        assert (await at.ask("4"))[1:] == [1, 14, 4]
        await lawful(ledger)


async def test_a_capped_event_has_code_5_and_what_was_recorded(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        assert (await at.ask("1", feature="calls"))[1:] == [1, 1, 0]
        assert (await at.ask("12", feature="calls", digest=8))[1:] == [5 + 16 * 15, 10, 9]
        await lawful(ledger)


@pytest.mark.parametrize(
    ("used", "quantity", "marks"),
    [(6, 1, 0), (6, 2, 1 + 2), (7, 1, 1 + 2), (7, 2, 1 + 2 + 4), (8, 1, 4), (8, 2, 4 + 8), (9, 1, 8), (10, 1, 0)],
)
async def test_a_counted_event_carries_the_marks_it_crossed(
    store: StoreServer, used: int, quantity: int, marks: int
) -> None:
    async with calm(store.url) as ledger:
        at = await scene(ledger, used=used)
        assert (await at.ask(str(quantity)))[1] == 1 + 16 * marks


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("skew_ms", [-SKEW_MS, SKEW_MS])
async def test_clocks_a_minute_apart_answer_so_for_the_whole_call_and_nothing_is_written(
    each_store: StoreServer, skew_ms: int
) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        at.caller.clock.skew_ms = skew_ms
        before = await ledger.dump()
        seconds, _ = await ledger.client.time()
        now_ms, verdict = await at.ask()
        assert verdict == -1
        assert abs(now_ms - seconds * 1000) < 5_000
        assert await ledger.dump() == before


@pytest.mark.parametrize("skew_ms", [-59_000, 59_000])
async def test_clocks_less_than_a_minute_apart_do_not_matter(store: StoreServer, skew_ms: int) -> None:
    async with calm(store.url) as ledger:
        at = await scene(ledger)
        at.caller.clock.skew_ms = skew_ms
        at.caller.time.learn(await ledger.now_ms())
        assert (await at.ask())[1:] == [1, 4, 0]


@pytest.mark.parametrize("days", [-1, 1])
async def test_keys_of_another_day_answer_so_with_the_right_time_and_nothing_is_written(
    each_store: StoreServer, days: int
) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        at.caller.time.learn(await ledger.now_ms() + days * DAY_MS)
        before = await ledger.dump()
        now_ms, verdict = await at.ask()
        assert verdict == -2
        assert abs(now_ms - await ledger.now_ms()) < 5_000
        assert await ledger.dump() == before


async def test_a_call_sent_before_midnight_and_run_after_it_is_counted_after_one_more_turn(store: StoreServer) -> None:
    async with calm(store.url, at="01-10T23:59:30") as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 2, "e1"))
        await ledger.jump_to(await ledger.now_ms() + MINUTE_MS)
        caller.time.test_offset_ms = ledger.offset_ms  # the day is the only thing that is not right
        outcome = await caller.counters.track(event("acme", 3, "e2"))
        assert (outcome.result, outcome.used) == (Result.RECORDED, 5)
        days = [key async for key in ledger.client.scan_iter(match="*:h:acme:scans:*")]
        assert {key[-8:][4:] for key in days} == {b"0110", b"0111"}


# ── quantities and totals ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    ["0", "-0", "-1", "0.5", "1.5", "nan", "-nan", "inf", "-inf", "1e400", "1e13", "1000000000001",
     "9007199254740992", "18446744073709551616", "x", "", " ", "5x", "1_0"],
)  # fmt: skip
async def test_a_quantity_that_is_no_whole_number_from_1_to_1e12_is_refused_without_a_trace(
    each_store: StoreServer, text: str
) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        before = await ledger.dump()
        assert (await at.ask(text, feature="open"))[1:] == [6, 0, 0]
        assert await ledger.dump() == before


@pytest.mark.parametrize("quantity", [1, 2, 999_999_999_999, 10**12])
async def test_every_whole_number_up_to_1e12_is_counted_exactly(each_store: StoreServer, quantity: int) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        assert (await at.ask(str(quantity), feature="open"))[1:] == [1, quantity, 0]
        await lawful(ledger)


@pytest.mark.parametrize(
    ("used", "quantity", "expected"),
    [
        (TOTAL_MAX - 1, 1, [1, TOTAL_MAX, 0]),
        (TOTAL_MAX - 10**12, 10**12, [1, TOTAL_MAX, 0]),
        (TOTAL_MAX, 1, [6, TOTAL_MAX, 0]),
        (TOTAL_MAX - 1, 2, [6, TOTAL_MAX - 1, 0]),
        (TOTAL_MAX - 10**12, 10**12 - 1, [1, TOTAL_MAX - 1, 0]),
    ],
)
async def test_a_total_is_exact_up_to_2_to_the_53_less_1_and_one_more_is_refused(
    each_store: StoreServer, used: int, quantity: int, expected: list[int]
) -> None:
    async with calm(each_store.url) as ledger:
        at = await scene(ledger)
        await give(ledger, "acme", "open", used)
        assert (await at.ask(str(quantity), feature="open"))[1:] == expected
        counted = await ledger.client.hget(ledger.keys.record("acme"), "u:open")
        assert int(counted) == expected[1]
        await lawful(ledger)


async def give(ledger: Ledger, org_id: str, feature: str, units: int) -> None:
    """Units that no event brought, in every place where an event's units are."""
    keys, now_ms = ledger.keys, await ledger.now_ms()
    await ledger.client.hset(keys.record(org_id), f"u:{feature}", units)
    day = keys.history(org_id, feature, day_text(now_ms // DAY_MS))
    await ledger.client.hset(day, f"{now_ms // 3_600_000 % 24:02d}", units)
    await ledger.client.expire(day, 86_400)
    await ledger.client.hincrby(keys.shared("totals", keys.partition(org_id)), f"u:free:{feature}", units)


# ── the words of a call ──────────────────────────────────────────────────────────────────────────────────


async def test_a_call_without_events_answers_the_time_alone(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        reply = await send(ledger, words(ledger, ledger.callers[0]))
        assert len(reply) == 1
        assert abs(reply[0] - await ledger.now_ms()) < 5_000


async def test_answers_stand_in_the_order_of_the_events(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        at = await scene(ledger)
        events = [waiting("acme", quantity, digest=100 + int(quantity), feature="open") for quantity in "123456"]
        reply = await ask(ledger, at.caller, (at.frame, events))
        assert reply[2::3] == [1, 3, 6, 10, 15, 21]
