"""Customers, products, prices, endpoints and portal settings of the sandbox, through Stripe's own client."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.support.sandbox_world import World, a_world, utc

NOW_S = utc(2026, 3, 17, 10, 30)
HOOK = "https://example.org/webhooks/stripe"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def test_a_customer_is_made_changed_listed_and_deleted(world: World) -> None:
    calls = world.v1.customers
    made = await calls.create_async(
        {"email": "ada@example.org", "name": "Ada", "metadata": {"org_id": "o-1", "a": "b"}}
    )
    changed = await calls.update_async(made.id, {"name": "", "metadata": {"a": "", "c": "d"}})
    assert (changed.name, changed.email, changed.metadata.to_dict()) == (
        None,
        "ada@example.org",
        {"org_id": "o-1", "c": "d"},
    )
    assert [row.id for row in (await calls.list_async({"email": "ada@example.org"})).data] == [made.id]
    assert (await calls.update_async(made.id, {"metadata": ""})).metadata.to_dict() == {}
    assert (await calls.delete_async(made.id)).deleted
    assert (await calls.retrieve_async(made.id)).deleted
    assert (await calls.list_async()).data == []
    for again in (calls.update_async(made.id, {"name": "b"}), calls.delete_async(made.id)):
        with pytest.raises(stripe.InvalidRequestError):
            await again
    told = ["customer.created", "customer.updated", "customer.updated", "customer.deleted"]
    assert await world.events() == told


async def test_an_update_tells_what_was_there_before(world: World) -> None:
    made = await world.v1.customers.create_async({"name": "Ada"})
    await world.v1.customers.update_async(made.id, {"name": "Bea"})
    newest = (await world.v1.events.list_async({"limit": 1})).data[0]
    assert newest.data.previous_attributes.to_dict() == {"name": "Ada"}


async def test_what_is_not_there_is_resource_missing(world: World) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.v1.customers.retrieve_async("cus_none")
    assert (caught.value.http_status, caught.value.code, str(caught.value.user_message)) == (
        404,
        "resource_missing",
        "No such customer: 'cus_none'",
    )


async def test_a_price_by_the_unit_has_up_to_twelve_decimal_places(world: World) -> None:
    await world.price("exact", unit_amount_decimal="0.000000000001")
    price = await world.v1.prices.retrieve_async(world.prices["exact"])
    assert (str(price.unit_amount_decimal), price.unit_amount) in {("1E-12", None), ("0.000000000001", None)}
    await world.price("whole", unit_amount_decimal="12")
    assert (await world.v1.prices.retrieve_async(world.prices["whole"])).unit_amount == 12
    with pytest.raises(stripe.InvalidRequestError):
        await world.price("finer", unit_amount_decimal="0.0000000000001")


@pytest.mark.parametrize("mode", ["graduated", "volume"])
async def test_a_tiered_price_shows_its_tiers_where_they_are_asked_for(world: World, mode: str) -> None:
    tiers = [{"up_to": 100, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": "0.5", "flat_amount": 10}]
    await world.price("steps", billing_scheme="tiered", tiers_mode=mode, tiers=tiers)
    price_id = world.prices["steps"]
    shown = await world.v1.prices.retrieve_async(price_id, {"expand": ["tiers"]})
    assert [(tier.up_to, tier.unit_amount, tier.flat_amount) for tier in shown.tiers] == [
        (100, 0, None),
        (None, None, 10),
    ]
    assert "tiers" not in (await world.v1.prices.retrieve_async(price_id)).to_dict()


@pytest.mark.parametrize(
    "params",
    [
        {"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [{"up_to": 5, "unit_amount": 1}]},
        {"billing_scheme": "tiered", "tiers": [{"up_to": "inf", "unit_amount": 1}]},
        {"tiers_mode": "volume", "tiers": [{"up_to": "inf", "unit_amount": 1}]},
        {"unit_amount": 1, "unit_amount_decimal": "1"},
        {},
        {"unit_amount": 1, "currency": "dollars"},
        {"unit_amount": 1, "product": "prod_none"},
        {"unit_amount": 1, "recurring": {"interval": "fortnight"}},
        {"unit_amount": 1, "recurring": {"interval": "month", "meter": "mtr_none", "usage_type": "metered"}},
    ],
)
async def test_a_price_that_does_not_hold_together_is_refused(world: World, params: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.price("wrong", **params)
    assert caught.value.http_status == 400


async def test_a_package_is_a_price_with_a_divisor(world: World) -> None:
    await world.price("pack", unit_amount=500, transform_quantity={"divide_by": 1000, "round": "up"})
    price = await world.v1.prices.retrieve_async(world.prices["pack"])
    assert (price.transform_quantity.divide_by, price.transform_quantity.round) == (1000, "up")


async def test_a_metered_price_needs_a_meter_since_usage_records_are_gone(world: World) -> None:
    metered = {"interval": "month", "usage_type": "metered"}
    with pytest.raises(stripe.InvalidRequestError, match="meter"):
        await world.price("over", unit_amount=1, recurring=metered)
    meter = await world.meter()
    await world.price("over", unit_amount=1, recurring={**metered, "meter": meter})
    assert (await world.v1.prices.retrieve_async(world.prices["over"])).recurring.meter == meter


async def test_a_lookup_key_names_one_price_and_moves_where_asked(world: World) -> None:
    await world.price("old", unit_amount=1, lookup_key="base")
    with pytest.raises(stripe.InvalidRequestError, match="lookup key"):
        await world.price("new", unit_amount=2, lookup_key="base")
    await world.price("new", unit_amount=2, lookup_key="base", transfer_lookup_key=True)
    found = await world.v1.prices.list_async({"lookup_keys": ["base", "none"], "active": True})
    assert [row.id for row in found.data] == [world.prices["new"]]
    assert (await world.v1.prices.retrieve_async(world.prices["old"])).lookup_key is None


async def test_what_a_price_costs_never_changes(world: World) -> None:
    await world.price("base", unit_amount=1)
    changed = await world.v1.prices.update_async(world.prices["base"], {"active": False, "metadata": {"a": "b"}})
    assert (changed.active, changed.metadata.to_dict()) == (False, {"a": "b"})
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
        await world.v1.prices.update_async(world.prices["base"], {"unit_amount": 2})


async def test_a_product_is_found_by_its_own_id(world: World) -> None:
    await world.v1.products.create_async({"name": "a", "id": "prod_a"})
    assert (await world.v1.products.update_async("prod_a", {"name": "b"})).name == "b"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.v1.products.create_async({"name": "a", "id": "prod_a"})
    assert caught.value.code == "resource_already_exists"


async def test_an_endpoint_tells_its_secret_only_when_it_is_made(world: World) -> None:
    calls = world.v1.webhook_endpoints
    made = await calls.create_async({"url": HOOK, "enabled_events": ["*"], "api_version": stripe.api_version})
    assert made.secret.startswith("whsec_")
    for shown in (await calls.retrieve_async(made.id), (await calls.list_async()).data[0]):
        assert "secret" not in shown.to_dict()
    assert (await calls.update_async(made.id, {"disabled": True})).status == "disabled"
    assert (await calls.delete_async(made.id)).deleted
    with pytest.raises(stripe.InvalidRequestError):
        await calls.retrieve_async(made.id)


async def test_a_destination_tells_its_secret_only_when_it_is_made_and_asked_for(world: World) -> None:
    calls = world.client.v2.core.event_destinations
    params = {
        "name": "n",
        "type": "webhook_endpoint",
        "event_payload": "thin",
        "enabled_events": ["v1.billing.meter.error_report_triggered"],
        "webhook_endpoint": {"url": HOOK},
    }
    include = ["webhook_endpoint.signing_secret", "webhook_endpoint.url"]
    silent = await calls.create_async(params)
    told = await calls.create_async({**params, "include": include})
    assert told.webhook_endpoint.signing_secret.startswith("whsec_")
    assert told.webhook_endpoint.url == HOOK
    assert "signing_secret" not in silent.webhook_endpoint.to_dict()
    later = await calls.retrieve_async(told.id, {"include": include[1:]})
    with pytest.raises(stripe.InvalidRequestError):
        await calls.retrieve_async(told.id, {"include": include})
    assert later.webhook_endpoint.to_dict() == {"url": HOOK}
    assert {row.id for row in (await calls.list_async()).data} == {silent.id, told.id}


@pytest.mark.parametrize("params", [{"url": "ftp://example.org", "enabled_events": ["*"]}, {"url": HOOK}])
async def test_an_endpoint_needs_an_address_and_events(world: World, params: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.webhook_endpoints.create_async(params)


async def test_settings_of_the_portal_are_made_changed_and_listed(world: World) -> None:
    calls = world.v1.billing_portal.configurations
    features = {"invoice_history": {"enabled": True}, "payment_method_update": {"enabled": True}}
    first = await calls.create_async({"features": features, "metadata": {"a": "b"}})
    second = await calls.create_async({"features": {"invoice_history": {"enabled": False}}})
    assert (first.is_default, second.is_default, first.features.invoice_history.enabled) == (True, False, True)
    changed = await calls.update_async(second.id, {"active": False, "default_return_url": "https://example.org"})
    assert (changed.active, changed.features.invoice_history.enabled) == (False, False)
    assert [row.id for row in (await calls.list_async({"active": True})).data] == [first.id]


async def test_plan_changes_in_the_portal_are_not_built_and_say_so(world: World) -> None:
    features = {"subscription_update": {"enabled": True, "default_allowed_updates": ["price"], "products": []}}
    with pytest.raises(stripe.APIError) as caught:
        await world.v1.billing_portal.configurations.create_async({"features": features})
    assert caught.value.http_status == 501


async def test_the_account_is_one_and_the_same(world: World) -> None:
    first = await world.v1.accounts.retrieve_current_async()
    assert first.id == (await world.v1.accounts.retrieve_current_async()).id
