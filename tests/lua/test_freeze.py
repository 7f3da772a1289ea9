"""freeze.lua: a closed period is invoiced once, and nothing of it changes by that."""

from tests.lua.effecting import effects_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def closed(ledger: Ledger) -> int:
    """The start of a period that closed with usage."""
    outcome = await ledger.callers[0].counters.track(event("acme", 13))
    await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
    await ledger.callers[0].orgs.get("acme")
    return outcome.period.start_ms


async def test_the_first_invoice_is_noted_and_a_second_word_changes_nothing(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        start_ms = await closed(ledger)
        key = ledger.keys.archive("acme", start_ms)
        before = await ledger.client.hgetall(key)
        assert await effects_of(ledger).freeze("acme", start_ms, 77)
        assert await ledger.client.hgetall(key) == before | {b"iv": b"77"}
        assert not await effects_of(ledger, 1).freeze("acme", start_ms, 78)
        assert await ledger.client.hgetall(key) == before | {b"iv": b"77"}
        await lawful(ledger)


async def test_a_period_that_is_not_there_is_not_made(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        start_ms = await closed(ledger)
        before = await ledger.dump()
        assert not await effects_of(ledger).freeze("acme", start_ms + 1, 77)
        assert await ledger.dump() == before
