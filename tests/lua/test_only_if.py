"""A change with a condition: nothing slips in between the look and the write, and a lost reply is no refusal."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from metering.clock import SystemClock
from metering.errors import PreconditionFailed
from metering.store.connect import connect
from metering.store.fields import FieldCodec
from metering.store.org import Org, settings_of
from metering.store.orgs import OnlyIf, OrgChange, Orgs
from metering.store.timing import StoreTime
from plans.catalogue import Override
from tests.lua.ledger import Ledger
from tests.lua.scenes import lawful
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer


def limited(limit: int) -> OrgChange:
    """A change of one limit."""
    return OrgChange(overrides={"scans": Override(limit=limit)})


def only_if(seen: Org | None) -> OnlyIf:
    """Stops a change of anything but what was seen."""

    def check(before: Org | None, _: Org) -> None:
        if (before and settings_of(before)) != (seen and settings_of(seen)):
            raise PreconditionFailed

    return check


async def made(ledger: Ledger) -> Org:
    org, _ = await ledger.callers[0].orgs.update("acme", OrgChange("free"), actor="test", create=True)
    assert org is not None
    return org


def limit_of(org: Org | None) -> int | None:
    assert org is not None
    return org.features["scans"].rule.limit


async def test_a_change_that_comes_between_look_and_write_stops_the_write(store: StoreServer) -> None:
    async with Ledger(store.url, test_clock=False) as ledger:
        seen, check = await made(ledger), only_if(None)

        async def meanwhile() -> None:
            async with connect(store.url) as client:
                time = StoreTime(SystemClock())
                orgs = Orgs(client, ledger.keys, ledger.catalogue, time, FieldCodec(), fake=False)
                await orgs.update("acme", limited(1), actor="other", create=False)

        looks: list[Org | None] = []

        def look(before: Org | None, after: Org) -> None:
            looks.append(before)
            check(before, after)
            if len(looks) == 1:
                with ThreadPoolExecutor(1) as pool:  # in a loop of its own, while this one stands at the look
                    pool.submit(asyncio.run, meanwhile()).result()

        check = only_if(seen)
        with pytest.raises(PreconditionFailed):
            await ledger.callers[0].orgs.update("acme", limited(2), actor="test", create=False, only_if=look)
        assert [limit_of(org) for org in looks] == [10, 1]
        assert limit_of(await ledger.callers[0].orgs.get("acme")) == 1
        await lawful(ledger)


async def test_of_many_changes_of_the_same_state_on_two_workers_one_is_made(store: StoreServer) -> None:
    async with Ledger(store.url, test_clock=False) as ledger:
        seen = await made(ledger)
        for turn in range(10):
            changes = (
                ledger.callers[n % 2].orgs.update(
                    "acme", limited(100 * turn + n), actor="test", create=False, only_if=only_if(seen)
                )
                for n in range(20)
            )
            found = await asyncio.gather(*changes, return_exceptions=True)
            [(won, _)] = [one for one in found if isinstance(one, tuple)]
            assert sum(isinstance(one, PreconditionFailed) for one in found) == 19
            present = await ledger.callers[0].orgs.get("acme")
            assert present is not None
            assert limit_of(won) == limit_of(present)
            seen = present
        await lawful(ledger)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_change_whose_reply_is_lost_is_told_as_done(store: StoreServer, times: int) -> None:
    async with Proxy(store.address) as proxy, Ledger(proxy.url, test_clock=False) as ledger:
        seen = await made(ledger)
        proxy.lose_replies = times
        org, created = await ledger.callers[0].orgs.update(
            "acme", limited(7), actor="test", create=False, only_if=only_if(seen)
        )
        assert (proxy.lose_replies, limit_of(org), created) == (0, 7, False)
        assert await ledger.client.xlen(ledger.keys.trail("acme")) == 2
        await lawful(ledger)


async def test_a_creation_whose_reply_is_lost_is_told_as_done(store: StoreServer) -> None:
    async with Proxy(store.address) as proxy, Ledger(proxy.url, test_clock=False) as ledger:
        await made(ledger)
        await ledger.client.flushall()
        proxy.lose_replies = 1
        org, created = await ledger.callers[0].orgs.update(
            "acme", OrgChange("pro"), actor="test", create=True, only_if=only_if(None)
        )
        assert org is not None
        assert (proxy.lose_replies, org.plan, created) == (0, "pro", True)
        with pytest.raises(PreconditionFailed):
            await ledger.callers[1].orgs.update(
                "acme", OrgChange("pro"), actor="test", create=True, only_if=only_if(None)
            )
        await lawful(ledger)
