"""reseal.lua and who calls it: every value comes under the present key, none that changed meanwhile is lost."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from metering.store.fields import FieldCodec, own_text
from metering.store.keys import DATASET
from metering.store.resealing import Resealer
from metering.store.scripts import script
from metering.store.shadow_book import ShadowBook
from metering.store.window import parsed
from tests.lua.erasing import erased
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, customer_of, sealed
from tests.lua.scenes import calm, event
from tests.support.servers import StoreServer

OLD, NEW = ("k1", b"1" * 32), ("k2", b"2" * 32)
PLAIN, FIRST, BOTH, SECOND = FieldCodec(), FieldCodec([OLD]), FieldCodec([NEW, OLD]), FieldCodec([NEW])

VALUES: Final = 7
"""Secret, customer of the second account; data key and customer of acme, a grant, the customer of a window, and that of
an organisation that was erased.
"""


async def _data_set(ledger: Ledger) -> str:
    """One value of each kind, as a service without keys leaves them; the window's id."""
    client, keys = ledger.client, ledger.keys
    await client.hset(DATASET, "secret", "ab" * 32)
    await ShadowBook(client, keys, PLAIN, "w").keep_customer("d" * 32, "cus_there")
    await ledger.callers[0].counters.track(event("acme", 13))
    await customer_of(ledger)
    await customer_of(ledger, "gone", "cus_gone")
    await erased(ledger, "gone")
    grant = {"cg_1": PLAIN.encode("acme", "grant", '{"source": {}}'), "cg_1|c": "1"}
    await client.hset(keys.grants("acme"), mapping=grant)
    return (await begun(ledger, await sealed(ledger))).id


async def _read(ledger: Ledger, window: str, codec: FieldCodec) -> list[str]:
    """The same values, read."""
    client, keys = ledger.client, ledger.keys
    profile = {name.decode(): text.decode() for name, text in (await client.hgetall(keys.profile("acme"))).items()}
    row = {name.decode(): text.decode() for name, text in (await client.hgetall(keys.window("acme", window))).items()}
    return [
        codec.decode_bare("", "secret", (await client.hget(DATASET, "secret")).decode()),
        await ShadowBook(client, keys, codec, "w").customer("d" * 32),
        codec.decode("acme", "stripe_customer", profile["stripe_customer"]),
        codec.decode("acme", "key", profile["key"])[:0],
        codec.decode("acme", "grant", (await client.hget(keys.grants("acme"), "cg_1")).decode()),
        parsed(window, row, codec).customer,
        codec.decode("gone", "stripe_customer", (await client.hget(keys.record("gone"), "stripe_customer")).decode()),
    ]


WANTED: Final = ["ab" * 32, "cus_there", "cus_1", "", '{"source": {}}', "cus_1", "cus_gone"]


def _resealer(ledger: Ledger, codec: FieldCodec) -> Resealer:
    return Resealer(ledger.client, ledger.keys, codec)


async def test_values_go_from_none_to_the_first_key_and_on_to_the_next(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=2) as ledger:
        window = await _data_set(ledger)
        assert await _resealer(ledger, PLAIN).counts() == {"": VALUES}
        assert await _resealer(ledger, FIRST).run() == VALUES
        assert await _resealer(ledger, FIRST).counts() == {"k1": VALUES}
        assert await _read(ledger, window, FIRST) == WANTED
        assert await _resealer(ledger, BOTH).run() == VALUES
        assert await _resealer(ledger, BOTH).run() == 0
        assert await _resealer(ledger, BOTH).counts() == {"k2": VALUES}
        assert await _read(ledger, window, SECOND) == WANTED


async def test_what_does_not_open_is_left_as_it_is_and_counted(store: StoreServer) -> None:
    async with calm(store.url, partitions=2) as ledger:
        await _data_set(ledger)
        moved = FIRST.encode("beta", "stripe_customer", "cus_2")
        lost = FieldCodec([("k0", b"0" * 32)]).encode("acme", "debts", "[]")
        await ledger.client.hset(ledger.keys.profile("acme"), mapping={"stripe_customer": moved, "debts": lost})
        assert await _resealer(ledger, BOTH).run() == VALUES - 1
        assert await _resealer(ledger, BOTH).counts() == {"k2": VALUES - 1, "k1": 1, "k0": 1}
        assert (await ledger.client.hget(ledger.keys.profile("acme"), "debts")).decode() == lost


async def test_a_grants_figures_and_a_streams_entries_are_no_values_of_it(store: StoreServer) -> None:
    async with calm(store.url, partitions=2) as ledger:
        await _data_set(ledger)
        key = (await ledger.callers[0].orgs.get("acme")).profile.data_key  # type: ignore[union-attr]
        await ledger.client.xadd(ledger.keys.ledger("acme"), {"ref": own_text("acme", "ref", "pi_1", key)})
        before = await ledger.client.xrange(ledger.keys.ledger("acme"))
        await _resealer(ledger, FIRST).run()
        assert await ledger.client.hget(ledger.keys.grants("acme"), "cg_1|c") == b"1"
        assert await ledger.client.xrange(ledger.keys.ledger("acme")) == before


async def test_a_key_of_another_type_does_not_hide_the_other_values(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await _data_set(ledger)
        await ledger.client.set(ledger.keys.grants("acme"), "no hash")
        assert await _resealer(ledger, FIRST).run() == VALUES - 1


async def _ran(ledger: Ledger, *words: str) -> int:
    reseal: Any = ledger.client.register_script(script("reseal").text)
    return int(await reseal(keys=["{p00}:p:acme"], args=list(words)))


@pytest.mark.parametrize(
    ("stored", "replaced", "then"),
    [
        ({"a": "1", "b": "2"}, 2, {"a": "x", "b": "y"}),
        ({"a": "1", "b": "changed"}, 1, {"a": "x", "b": "changed"}),  # by a service, since it was read
        ({"a": "1"}, 1, {"a": "x"}),  # and taken away: it does not come back
        ({}, 0, {}),
    ],
)
async def test_a_value_is_replaced_only_while_it_is_as_it_was_read(
    each_store: StoreServer, stored: Mapping[str, str], replaced: int, then: Mapping[str, str]
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        for name, text in stored.items():
            await ledger.client.hset("{p00}:p:acme", name, text)
        assert await _ran(ledger, "a", "1", "x", "b", "2", "y") == replaced
        assert {k.decode(): v.decode() for k, v in (await ledger.client.hgetall("{p00}:p:acme")).items()} == then
