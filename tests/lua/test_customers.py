"""The index of customers: it may name too many organisations, what is read of it never does."""

from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.store.orgs import OrgChange, Orgs
from tests.lua.ledger import SECRET, Ledger
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer


def customers_of(ledger: Ledger, secret: bytes = SECRET) -> Customers:
    return Customers(ledger.client, ledger.keys, FieldCodec(), secret)


async def link(ledger: Ledger, org_id: str, customer: str) -> None:
    """Give an organisation a customer, as a person would."""
    caller = ledger.callers[0]
    orgs = Orgs(
        ledger.client, ledger.keys, ledger.catalogue, caller.time, FieldCodec(), fake=False,
        customers=customers_of(ledger),
    )  # fmt: skip
    await orgs.update(org_id, OrgChange(stripe_customer_id=customer), actor="ann", create=True)


async def test_a_customer_is_known_by_the_organisations_it_pays_for(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        for org_id, customer in (("beta", "cus_1"), ("acme", "cus_1"), ("other", "cus_2")):
            await link(ledger, org_id, customer)
        assert await customers_of(ledger).orgs_of("cus_1") == ["acme", "beta"]
        assert await customers_of(ledger).orgs_of("cus_3") == []
        await lawful(ledger)


async def test_an_organisation_that_moved_on_is_not_named_any_more(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await link(ledger, "acme", "cus_1")
        await link(ledger, "acme", "cus_2")
        assert await customers_of(ledger).orgs_of("cus_1") == []
        assert await customers_of(ledger).orgs_of("cus_2") == ["acme"]


async def test_an_entry_without_its_profile_is_not_believed(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await customers_of(ledger).add("cus_1", "ghost")
        assert await customers_of(ledger).orgs_of("cus_1") == []


async def test_a_lost_index_is_written_again_from_the_profiles(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        names = [f"org{number}" for number in range(9)]
        for name in names:
            await link(ledger, name, "cus_1")
        keys = [key async for key in ledger.client.scan_iter(match="*:f:*")]
        await ledger.client.delete(*keys)
        assert await customers_of(ledger).orgs_of("cus_1") == []
        await customers_of(ledger).sweep()
        assert await customers_of(ledger).orgs_of("cus_1") == names
        await lawful(ledger)


async def test_keys_name_no_customer_and_the_digest_belongs_to_the_data_set(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await link(ledger, "acme", "cus_secret")
        assert not [key async for key in ledger.client.scan_iter(match="*cus_secret*")]
        assert customers_of(ledger).digest("cus_1") != customers_of(ledger, b"another secret").digest("cus_1")
