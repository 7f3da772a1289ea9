"""link.lua: what was put by of an organisation is taken up when somebody pays for it, and nobody else's."""

import pytest

from metering.errors import OrgCorrupt
from tests.lua.ledger import Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def take_up(ledger: Ledger) -> int:
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return await ledger.callers[0].orgs.link(org)


async def test_all_periods_of_the_organisation_are_taken_up_and_no_neighbour_s(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        names = ("acme", "acme-2", "acme.x", "acm", "acmez")
        for name in names:
            await ledger.callers[0].counters.track(event(name, 13))
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].counters.track(event("acme", 13))
        for name in names:
            await ledger.callers[0].orgs.get(name)
        outbox = outbox_of(ledger)
        for member in await outbox.dirty(0, 100):
            assert await outbox.park(member, "")
        await take_up(ledger)
        assert await outbox.dirty(0, 100) == []
        await customer_of(ledger)
        assert {member.split("|")[0] for member in await outbox.dirty(0, 100)} == {"acme"}
        assert {member.split("|")[0] for member in await outbox.unbilled(0)} == set(names) - {"acme"}
        assert await take_up(ledger) == 0
        await lawful(ledger)


async def test_a_key_of_a_wrong_type_stops_it(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        assert await outbox_of(ledger).park("acme|scans", "")
        await ledger.client.hset(ledger.keys.profile("acme"), "stripe_customer", "p.cus_1")
        await ledger.client.set("{p00}:dirty", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await take_up(ledger)
        assert await ledger.dump() == before
