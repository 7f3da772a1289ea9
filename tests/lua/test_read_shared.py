"""read_shared.lua: what the metrics want of a partition is what its keys hold, each asked by itself."""

from typing import Any, Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.connect import connect
from metering.store.drift import Drift
from metering.store.ephemeral import ephemeral_store
from metering.store.keys import Keys
from metering.store.outbox_state import LOOKED_AT, OutboxState
from metering.store.queue_state import QueueState
from metering.store.shared import Shared, read_shared
from metering.store.totals import Totals
from tests.support.servers import StoreServer

KEYS: Final = Keys(4)
AHEAD_MS: Final = 7_000
TOP: Final = 2
STRICT: Final = ("totals", "plans", "orgs", "top")
SPARE: Final = ("queue", "dead", "inbox", "dead_inbox", "dirty", "outbox", "dead_windows", "unbilled", "frozen")


async def fill(client: Any) -> int:
    """Put something into every kind of key of every partition, different in each; when it was begun (ms)."""
    seconds, _ = await client.time()
    now_ms = int(seconds) * 1000
    await client.set("{p00}:clock", AHEAD_MS)
    await client.hset("{p00}:stripe", mapping={"drift_units": 5, "drift_lanes": 2, "reconciled": 9})
    for n in range(KEYS.partitions):
        at = KEYS.shared("", n)[:-1]
        totals = {
            "u:free:scans": 3 + n,
            "u:pro:a:b": 1,
            "c:scans": n,
            "e:plan_changed": 2,
            "w:new": 1,
            "orders:usd:500": n,
        }
        await client.hset(f"{at}:totals", mapping=totals)
        await client.hset(f"{at}:plans", mapping={"free": 1 + n, "pro": 0})
        for size, kind in enumerate(("orgs", "dead_windows", "unbilled", "frozen"), n):
            await client.zadd(f"{at}:{kind}", {f"{kind}-{one}": 0 for one in range(size + 1)})
        await client.zadd(f"{at}:top", {f"org-{n}-{one}": 1000 * n + one + 0.25 for one in range(TOP + 2)})
        await client.zadd(f"{at}:dirty", {f"org-{n}|scans": now_ms - 1000 * n, "later|scans": now_ms})
        await client.zadd(f"{at}:outbox", {f"w{one}": one for one in range(LOOKED_AT + 3)})
        for one in range(LOOKED_AT + 3):
            await client.hset(KEYS.window_at(n, f"w{one}"), "at", now_ms - 10_000 * (one + 1))
        for size, kind in enumerate(("queue", "dead", "inbox", "dead_inbox"), n):
            for one in range(size):
                name, offset = f"{now_ms - 60_000 + one}-{n}", {"offset": AHEAD_MS} if kind == "queue" else {}
                await client.xadd(f"{at}:{kind}", {"box": "x", **offset}, id=name)
    return now_ms


async def by_hand(client: Any, now_ms: int) -> Shared:
    """The same, each key asked by itself."""
    totals, ours_ms = Totals(), now_ms + AHEAD_MS
    sizes: dict[str, int] = {}
    for n in range(KEYS.partitions):
        at = KEYS.shared("", n)[:-1]
        totals.add(
            await client.hgetall(f"{at}:totals"), await client.hgetall(f"{at}:plans"), await client.zcard(f"{at}:orgs")
        )
        highest = await client.zrange(f"{at}:top", 0, TOP - 1, desc=True, withscores=True)
        totals.top |= {name.decode(): score for name, score in highest}
        for kind in SPARE:
            ask = client.xlen if kind in SPARE[:4] else client.zcard
            sizes[kind] = sizes.get(kind, 0) + await ask(f"{at}:{kind}")
    return Shared(
        totals,
        QueueState(sizes["queue"], ours_ms - (now_ms - 60_000 + AHEAD_MS), sizes["dead"]),
        QueueState(sizes["inbox"], now_ms - (now_ms - 60_000), sizes["dead_inbox"]),
        OutboxState(
            sizes["dirty"], sizes["outbox"], ours_ms - (now_ms - 10_000 * LOOKED_AT), sizes["dead_windows"],
            sizes["unbilled"], Drift(5, 2, 9), sizes["frozen"],
        ),
    )  # fmt: skip


def apart_from_time(read: Shared) -> list[object]:
    """All but the ages."""
    outbox, queues = read.outbox, (read.queue, read.inbox)
    counts = (outbox.unsealed, outbox.windows, outbox.dead, outbox.unbilled, outbox.drift, outbox.frozen)
    return [read.totals, counts, [(one.length, one.dead) for one in queues]]


def ages_ms(read: Shared) -> list[int]:
    return [read.queue.age_ms, read.inbox.age_ms, read.outbox.age_ms]


async def same(client: Any, *, fake: bool) -> None:
    """What is read is what the keys hold, and as old as it is or up to a minute older, as time passes meanwhile."""
    expected = await by_hand(client, await fill(client))
    found = await read_shared(client, KEYS, top=TOP, fake=fake)
    assert apart_from_time(found) == apart_from_time(expected)
    assert all(0 <= now - then < 60_000 for now, then in zip(ages_ms(found), ages_ms(expected), strict=True))


async def test_what_is_read_is_what_the_keys_hold(store: StoreServer) -> None:
    async with connect(store.url) as client:
        await same(client, fake=False)


async def test_a_store_in_memory_says_the_same() -> None:
    with ephemeral_store() as url:
        async with connect(url) as client:
            await same(client, fake=True)


@pytest.mark.parametrize("kind", SPARE)
async def test_a_queue_of_the_wrong_type_hides_only_itself(store: StoreServer, kind: str) -> None:
    async with connect(store.url) as client:
        before = await by_hand(client, await fill(client))
        await client.delete(f"{{p02}}:{kind}")
        await client.set(f"{{p02}}:{kind}", "7")
        found = await read_shared(client, KEYS, top=TOP)
        assert found.totals == before.totals
        changed = [a != b for a, b in zip(apart_from_time(found), apart_from_time(before), strict=True)]
        assert sum(changed) == 1


@pytest.mark.parametrize("kind", STRICT)
async def test_sums_of_the_wrong_type_are_told(store: StoreServer, kind: str) -> None:
    async with connect(store.url) as client:
        await client.set(f"{{p02}}:{kind}", "7")
        with pytest.raises(OrgCorrupt):
            await read_shared(client, KEYS, top=TOP)


async def test_figures_are_read_where_the_store_is_full_and_after_it_lost_the_script(store: StoreServer) -> None:
    async with connect(store.url) as client:
        await fill(client)
        await client.script_flush()
        await client.config_set("maxmemory", 1)
        try:
            assert (await read_shared(client, KEYS, top=TOP)).totals.orgs == sum(n + 1 for n in range(4))
        finally:
            await client.config_set("maxmemory", 0)
