"""What comes late: writers that read an organisation before it ended, and what names it where it is not looked for."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from metering.auth import USAGE_WRITE
from metering.erasure_errors import OrgErased
from metering.errors import OrgCorrupt
from metering.store.api_key import NewKey
from metering.store.credits import Credits
from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.store.holds import Holds
from metering.store.org import Org
from metering.store.orgs import OrgChange
from metering.store.outbox import Begun
from metering.store.queue_dead import retry_dead
from metering.store.removal import Files
from metering.store.topups import Stop
from plans.periods import month_span_utc
from tests.lua.crediting import ANN, order
from tests.lua.erasing import erased, erasures_of, left_of, lived, removal_of
from tests.lua.ledger import CATALOGUE, SECRET, Ledger
from tests.lua.lines import dead, line_of, queued, used
from tests.lua.outboxes import CUSTOMER, begun, customer_of, lanes_of, outbox_of, sealed, start_of
from tests.lua.scenes import calm, event, lawful
from tests.lua.topping import attempt, low, topups_of
from tests.lua.vault import Worker
from tests.support.servers import StoreServer


def mark_of(ledger: Ledger, org_id: str = "acme") -> set[str]:
    """All that may be left of an organisation."""
    return {ledger.keys.record(org_id), f"{ledger.keys.shared('erased', ledger.keys.partition(org_id))}#{org_id}"}


class Stale:
    """Organisations as a worker has them that read one before it was erased."""

    def __init__(self, ledger: Ledger, org: Org) -> None:
        self._orgs, self._org = ledger.callers[0].orgs, org

    async def present(self, _: str) -> Org:
        """As it was."""
        return self._org

    async def server_now(self) -> int:
        """The store's time."""
        return await self._orgs.server_now()


async def late_writes(ledger: Ledger, org: Org) -> list[Callable[[], Awaitable[Any]]]:
    """Calls of somebody who does not know yet."""
    stale: Any = Stale(ledger, org)
    credit_book = Credits(ledger.client, ledger.keys, stale, ledger.callers[0].time, FieldCodec())
    book, holds = topups_of(ledger), ledger.callers[0].holds
    return [
        lambda: credit_book.grant("acme", order("cg_9"), ANN),
        lambda: credit_book.mark_low("acme", 70, ANN),
        lambda: credit_book.freeze("acme", "cg_1", ANN, ticket=9),
        lambda: credit_book.take_back("acme", "cg_1", 5, ANN, ticket=9),
        lambda: book.begin("acme", attempt(), ANN),
        lambda: book.end("acme", "", ANN, stop=Stop.NO_METHOD),
        lambda: holds.release("acme", "r1"),
        lambda: holds.extend("acme", "r1", 60_000),
        lambda: holds.find("acme", "r1"),
    ]


@pytest.mark.parametrize("removed", [False, True])
async def test_who_read_it_before_it_ended_writes_nothing_after(store: StoreServer, removed: bool) -> None:
    """Above all no card is charged: a top-up begins in the store before Stripe hears of it."""
    async with calm(store.url) as ledger:
        await lived(ledger)
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        await erased(ledger)
        if removed:
            await removal_of(ledger).turn()
        before = await ledger.dump()
        for late in await late_writes(ledger, org):
            with pytest.raises(OrgErased):
                await late()
        assert await ledger.dump() == before


async def test_jobs_that_were_on_their_way_to_it_leave_no_list_that_names_it(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await lived(ledger)
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        await erased(ledger)
        before, partition, long_ago = await ledger.dump(), ledger.keys.partition("acme"), 1
        for kind in ("expiring", "lapsing"):
            await ledger.client.zadd(ledger.keys.shared(kind, partition), {"acme": long_ago})
        holds: Holds = ledger.callers[0].holds
        await holds.expire()
        stale: Any = Stale(ledger, org)
        await Credits(ledger.client, ledger.keys, stale, ledger.callers[0].time, FieldCodec()).lapse()
        await ledger.client.zrem(ledger.keys.shared("lapsing", partition), "acme")
        await Customers(ledger.client, ledger.keys, FieldCodec(), SECRET).add("cus_late", "acme")
        assert await ledger.dump() == before


async def test_what_names_it_elsewhere_goes_too(store: StoreServer) -> None:
    """Months of ids that are over, a customer of before, a window on its way, its lane, an API key that was ended."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await customer_of(ledger, customer="cus_before")
        await Customers(ledger.client, ledger.keys, FieldCodec(), SECRET).add("cus_before", "acme")
        await caller.counters.track(event("acme", 3, "e1"))
        for _ in range(2):
            await ledger.jump_to(month_span_utc(await ledger.now_ms()).end_ms + 1)
            await caller.counters.track(event("acme", 3))
        await customer_of(ledger)
        await caller.counters.track(event("acme", 14))
        window = await begun(ledger, await sealed(ledger))
        assert await lanes_of(ledger).take(lanes_of(ledger).name(CUSTOMER, "m"), window) is None
        key, _ = await Worker(ledger).keys.create(NewKey("old", "acme", (USAGE_WRITE,)), actor="ann")
        await Worker(ledger).keys.delete(key.key_id, actor="ann")
        kinds = {name.split(":")[1].partition("#")[0] for name in await left_of(ledger)}
        assert {"spent", "f", "b", "l", "x"} <= kinds
        await erased(ledger, write_off=True)
        await removal_of(ledger).turn()
        assert await left_of(ledger) == mark_of(ledger)
        await lawful(ledger)


async def test_a_window_that_moves_while_it_is_looked_for_goes_too(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await customer_of(ledger)
        await ledger.callers[0].counters.track(event("acme", 14))
        name = await sealed(ledger)
        await erased(ledger, write_off=True)
        await ledger.client.zrem(ledger.keys.shared("outbox", ledger.keys.partition("acme")), name)
        await removal_of(ledger).turn()
        assert await left_of(ledger) == mark_of(ledger)
        assert await outbox_of(ledger).window_of("acme", name) is None


@pytest.mark.parametrize("knows", [True, False])
async def test_events_that_wait_for_it_are_gone_and_hold_up_no_other(store: StoreServer, knows: bool) -> None:
    """Taken out by a worker that knows its key yet, and by one that cannot open them; so are dead ones put back."""
    async with calm(store.url) as ledger:
        first, second = (line_of(ledger, caller) for caller in ledger.callers)
        await first.accept(event("acme", 3, "e1"), event("beta", 2, "e2"), event("acme", 4))
        queue, dead_letters = (ledger.keys.shared(name, ledger.keys.partition("acme")) for name in ("queue", "dead"))
        for _, fields in await ledger.client.xrange(queue):
            await ledger.client.xadd(dead_letters, {**fields, b"why": b"org-corrupt"})
        await erased(ledger)
        await (first if knows else second).consumer.turn()
        assert (await used(ledger, "beta"), await queued(ledger)) == (2, 0)
        assert await retry_dead(ledger.client, ledger.keys) > 0
        await (first if knows else second).consumer.turn()
        assert (await queued(ledger), await dead(ledger)) == (0, [])
        await removal_of(ledger).turn()
        assert await left_of(ledger) == mark_of(ledger)


async def test_overage_that_was_given_up_is_sent_by_nobody(store: StoreServer) -> None:
    """Also where an attempt was begun before: a worker may have read the window a moment ago."""
    async with calm(store.url) as ledger:
        await customer_of(ledger)
        await ledger.callers[0].counters.track(event("acme", 14))
        window = await begun(ledger, await sealed(ledger))
        outbox = outbox_of(ledger)
        assert await outbox.defer(window, 1, 0, "busy", nothing=False)
        await erased(ledger, write_off=True)
        assert (await outbox.attempt(window, start_of(window)))[0] is Begun.GONE


@pytest.mark.parametrize(
    ("name", "field"),
    [("plans", "pro"), ("totals", "e:org_erased"), ("totals", "g:pro:checks"), ("totals", "o:checks")],
)
async def test_a_sum_that_is_no_number_ends_it_before_anything_is_gone(
    store: StoreServer, name: str, field: str
) -> None:
    async with calm(store.url) as ledger:
        await lived(ledger)
        await ledger.client.hset(ledger.keys.shared(name, ledger.keys.partition("acme")), field, "many")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await erased(ledger)
        assert await ledger.dump() == before


async def test_whoever_is_listed_and_was_not_erased_loses_nothing(store: StoreServer) -> None:
    """As an edited store may have it."""
    async with calm(store.url) as ledger:
        await lived(ledger)
        await ledger.client.zadd(ledger.keys.shared("erasing", ledger.keys.partition("acme")), {"acme": 1})
        before = await ledger.dump()
        await removal_of(ledger).turn()
        assert await ledger.dump() == before


async def test_one_that_cannot_be_removed_keeps_no_other(store: StoreServer) -> None:
    """A mark under a key that this service lacks; and a list of API keys that names one which is not there."""
    async with calm(store.url) as ledger:
        for org_id in ("acme", "beta"):
            await ledger.callers[0].orgs.update(org_id, OrgChange(stripe_customer_id=CUSTOMER), actor="a", create=True)
            await erased(ledger, org_id)
        await ledger.client.hset(ledger.keys.record("acme"), "stripe_customer", "v1.lost.box")
        keys = ledger.keys.shared("api_keys", ledger.keys.partition("beta"))
        await ledger.client.zadd(keys, {f"beta|{0:019x}": 0})
        await removal_of(ledger).turn()
        assert await left_of(ledger, "beta") == mark_of(ledger, "beta")
        assert await ledger.client.hget(ledger.keys.record("acme"), "done") is None


class Refusing(Redis):
    """A store with a file, that says no to its rewriting."""

    refusal: Exception

    @classmethod
    def over(cls, client: Any, refusal: Exception) -> "Refusing":
        """On the connections of another client."""
        made = cls(connection_pool=client.connection_pool)
        made.refusal = refusal
        return made

    async def info(self, *_: Any, **__: Any) -> Any:
        """It keeps a file."""
        return {"aof_enabled": 1, "aof_rewrite_in_progress": 0, "aof_rewrite_scheduled": 0}

    async def bgrewriteaof(self, **_: Any) -> Any:
        """No."""
        raise self.refusal


@pytest.mark.parametrize(
    ("refusal", "files"),
    [
        (NoPermissionError("this user has no permissions to run the 'bgrewriteaof' command"), Files.REFUSED),
        (ResponseError("unknown command 'BGREWRITEAOF', with args beginning with: "), Files.REFUSED),
        (ResponseError("Can't execute an AOF background rewriting. Please check the server logs"), None),
    ],
)
async def test_a_file_that_cannot_be_rewritten_now_is_no_refusal(
    store: StoreServer, refusal: Exception, files: Files | None
) -> None:
    """A full disk passes: the receipt must not tell an operator to grant what is granted, nor that it is done."""
    async with calm(store.url) as ledger:
        await low(ledger)
        await erased(ledger)
        await removal_of(ledger, client=Refusing.over(ledger.client, refusal)).turn()
        erasure = await erasures_of(ledger).find("acme")
        assert erasure is not None
        assert (erasure.files, erasure.done_ms is not None) == (files, files is not None)
        if files is None:
            await removal_of(ledger).turn()
            assert (await erasures_of(ledger).find("acme")).done_ms is not None  # type: ignore[union-attr]


async def test_a_set_of_another_organisation_that_has_its_name_as_a_value_is_left_alone(store: StoreServer) -> None:
    """Of a dimension called `f`: its key looks like that of a customer to whoever does not look where it begins."""
    async with calm(store.url, catalogue=f"{CATALOGUE}\n[dimensions]\nf = 10\n") as ledger:
        await ledger.callers[0].counters.track(replace(event("beta"), dimensions={"f": "acme"}))
        await ledger.callers[0].counters.track(event("acme"))
        values = [key async for key in ledger.client.scan_iter(match="*:v:beta:f:*")]
        assert len(values) == 1
        await erased(ledger)
        await removal_of(ledger).turn()
        assert await ledger.client.smembers(values[0]) == {b"acme"}
        await lawful(ledger)
