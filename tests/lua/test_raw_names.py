"""Pseudonyms lead back to organisations while their keys are there."""

from typing import Final

from metering.clock import HandClock
from metering.store.fields import FieldCodec, pseudonym
from metering.store.raw_names import LOOK_S, REMEMBERED_S, Names
from tests.lua.ledger import Ledger
from tests.lua.scenes import event
from tests.support.servers import StoreServer

S: Final = 1000


async def made(ledger: Ledger, org_id: str) -> str:
    """The pseudonym of an organisation that is stored."""
    await ledger.callers[0].counters.track(event(org_id))
    org = await ledger.callers[0].orgs.get(org_id)
    assert org is not None
    return pseudonym(org_id, org.profile.data_key)


def names_of(ledger: Ledger, clock: HandClock) -> Names:
    return Names(ledger.client, ledger.keys, FieldCodec(), clock.monotonic)


async def test_a_pseudonym_leads_to_its_organisation_and_key(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        marks = {org_id: await made(ledger, org_id) for org_id in ("acme", "beta")}
        names = names_of(ledger, HandClock(0))
        for org_id, mark in marks.items():
            known = await names.of(0, mark)
            assert known is not None
            assert (known.org_id, pseudonym(org_id, known.data_key)) == (org_id, mark)


async def test_what_no_key_makes_leads_nowhere_and_is_not_searched_for_each_time(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        clock = HandClock(0)
        names = names_of(ledger, clock)
        assert await names.of(0, "0" * 24) is None
        mark = await made(ledger, "acme")
        assert await names.of(0, mark) is None
        clock.advance(int(LOOK_S * S) + 1)
        known = await names.of(0, mark)
        assert known is not None


async def test_a_key_that_was_deleted_is_forgotten_after_a_while(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        clock = HandClock(0)
        names = names_of(ledger, clock)
        mark = await made(ledger, "acme")
        assert await names.of(0, mark) is not None
        await ledger.client.delete("{p00}:p:acme")
        assert await names.of(0, mark) is not None
        clock.advance(int(REMEMBERED_S * S) + 1)
        assert await names.of(0, mark) is None


async def test_many_organisations_are_loaded_in_pages(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        pipe = ledger.client.pipeline(transaction=False)
        for number in range(1200):
            pipe.zadd("{p00}:orgs", {f"org-{number}": 0})
            pipe.hset(f"{{p00}}:p:org-{number}", "key", f"p.{number:064x}")
        await pipe.execute()
        names = names_of(ledger, HandClock(0))
        for number in (0, 700, 1199):
            known = await names.of(0, pseudonym(f"org-{number}", bytes.fromhex(f"{number:064x}")))
            assert known is not None
            assert known.org_id == f"org-{number}"
