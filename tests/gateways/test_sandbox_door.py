"""The sandbox lets in what Stripe would let in, and can never be taken for Stripe with real money."""

from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import Any

import aiohttp
import pytest
import stripe

from metering.billing.gateway import API_VERSION
from metering.billing.sandbox.context import Options
from metering.billing.sandbox.table import ROUTES, Table
from tests.support.sandbox_world import World, a_world, utc
from tests.support.stripe_calls import calls, find_call

NOW_S = utc(2026, 3, 17, 10, 30)
METER = "display_name=a&event_name=b&default_aggregation[formula]=sum"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEY = {"Authorization": "Bearer sk_test_1"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def asked(world: World, method: str, path: str, **how: Any) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Status, error (or object) and headers of a raw request."""
    how.setdefault("headers", KEY)
    async with world.http.request(method, world.url + path, **how) as answer:
        body = await answer.json()
        return answer.status, body.get("error", body), answer.headers


@pytest.mark.parametrize("key", ["sk_sandbox_1", "sk_test_1", "rk_sandbox_1", "rk_test_1"])
async def test_test_keys_are_taken(world: World, key: str) -> None:
    status, account, _ = await asked(world, "GET", "/v1/account", headers={"Authorization": f"Bearer {key}"})
    assert (status, account["object"]) == (200, "account")


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1", "pk_test_1", "anything", ""])
async def test_every_other_key_is_refused_a_live_one_above_all(world: World, key: str) -> None:
    status, error, _ = await asked(world, "GET", "/v1/account", headers={"Authorization": f"Bearer {key}"})
    assert (status, error["type"]) == (401, "invalid_request_error")
    with pytest.raises(stripe.AuthenticationError):
        await world.client.v1.accounts.retrieve_current_async(options={"api_key": key or "x"})


async def test_a_key_may_come_as_the_name_of_a_user(world: World) -> None:
    headers = {"Authorization": aiohttp.encode_basic_auth("sk_test_1", "")}
    assert (await asked(world, "GET", "/v1/account", headers=headers))[0] == 200


async def test_a_sandbox_of_one_service_takes_its_key_alone() -> None:
    async with a_world(NOW_S, options=Options(key="sk_sandbox_ours")) as world:
        for key, status in (("sk_sandbox_ours", 200), ("sk_sandbox_other", 401), ("sk_test_1", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await asked(world, "GET", "/v1/account", headers=headers))[0] == status


async def test_livemode_is_false_wherever_it_is_told(world: World) -> None:
    customer = await world.v1.customers.create_async({"email": "ada@example.org"})
    events = (await world.v1.events.list_async()).data
    assert [customer.livemode, *(event.livemode for event in events)] == [False, False]


async def test_an_unknown_path_is_404(world: World) -> None:
    status, error, _ = await asked(world, "GET", "/v1/usage_records")
    assert (status, error["message"]) == (404, "Unrecognized request URL (GET: /v1/usage_records).")


async def test_a_call_of_stripes_that_is_not_built_is_501_and_the_client_is_told_not_to_try_again(world: World) -> None:
    status, error, headers = await asked(world, "GET", "/v1/climate/orders")
    assert (status, error["code"], headers["Stripe-Should-Retry"]) == (501, "sandbox_not_built", "false")
    assert "GET /v1/climate/orders" in error["message"]


@pytest.mark.parametrize(
    ("form", "param"),
    [("color=red", "color"), ("default_aggregation[planet]=mars", "default_aggregation[planet]")],
)
async def test_an_unknown_parameter_is_400_and_named(world: World, form: str, param: str) -> None:
    status, error, _ = await asked(world, "POST", "/v1/billing/meters", data=f"{METER}&{form}", headers=KEY | FORM)
    assert (status, error["code"], error["param"]) == (400, "parameter_unknown", param)


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ("event_name=a", "parameter_missing", "default_aggregation"),
        (f"{METER}&event_name=", "parameter_invalid_empty", "event_name"),
        (METER.replace("sum", "max"), None, "default_aggregation[formula]"),
        (f"{METER}&event_name={'a' * 101}", "parameter_invalid_string_too_long", "event_name"),
    ],
)
async def test_a_wrong_parameter_is_400_and_named(world: World, form: str, code: str | None, param: str) -> None:
    status, error, headers = await asked(world, "POST", "/v1/billing/meters", data=form, headers=KEY | FORM)
    assert (status, error.get("code"), error["param"]) == (400, code, param)
    assert headers["Stripe-Should-Retry"] == "false"


@pytest.mark.parametrize("steps", [21, 20_000])
async def test_a_name_of_too_many_steps_is_400(world: World, steps: int) -> None:
    form = f"{METER}&metadata{'[a]' * steps}=1"
    status, error, _ = await asked(world, "POST", "/v1/billing/meters", data=form, headers=KEY | FORM)
    assert (status, "steps" in error["message"]) == (400, True)


async def test_another_version_of_the_api_is_400(world: World) -> None:
    headers = KEY | {"Stripe-Version": "2025-03-31.basil"}
    status, error, _ = await asked(world, "GET", "/v1/account", headers=headers)
    assert (status, "2025-03-31.basil" in error["message"]) == (400, True)


def test_the_sandbox_speaks_the_version_of_the_installed_client() -> None:
    assert stripe.api_version == API_VERSION


def test_every_call_that_was_built_is_one_of_stripes() -> None:
    assert [
        route.path for route in ROUTES if find_call(route.method, route.path.translate({123: None, 125: None})) is None
    ] == []


def test_every_call_of_stripes_is_known_to_the_sandbox() -> None:
    text = resources.files("metering.billing.sandbox").joinpath("known_calls.txt").read_text()
    assert text.splitlines() == [
        f"{method} {path}" for path, method in sorted({(call.path, call.method) for call in calls()})
    ]
    assert Table.is_known("POST", "/v1/climate/orders/climorder_1/cancel")
    assert not Table.is_known("PUT", "/v1/customers/cus_1")


async def test_an_answer_has_stripes_headers_and_the_sandboxs_own_time(world: World) -> None:
    world.now[0] = utc(2031, 1, 2, 3, 4, 5)
    _, _, headers = await asked(
        world, "POST", "/v1/products", data={"name": "a"}, headers=KEY | {"Idempotency-Key": "k"}
    )
    assert headers["Date"] == "Thu, 02 Jan 2031 03:04:05 GMT"
    assert headers["Request-Id"].startswith("req_")
    assert (headers["Stripe-Version"], headers["Idempotency-Key"]) == (API_VERSION, "k")


async def test_above_its_rate_it_answers_429_which_the_client_hands_on() -> None:
    stopwatch = [0.0]
    async with a_world(NOW_S, options=Options(rate_per_s=2), stopwatch=lambda: stopwatch[0]) as world:
        for _ in range(2):
            await world.v1.accounts.retrieve_current_async()
        with pytest.raises(stripe.RateLimitError) as caught:
            await world.v1.accounts.retrieve_current_async()
        body: Any = caught.value.json_body
        assert body["error"]["code"] == "rate_limit"
        stopwatch[0] = 0.5
        await world.v1.accounts.retrieve_current_async()
        with pytest.raises(stripe.RateLimitError):
            await world.v1.accounts.retrieve_current_async()


async def test_lists_are_paged_from_either_end(world: World) -> None:
    made = [(await world.v1.products.create_async({"name": f"p{number}"})).id for number in range(5)]
    newest = made[::-1]

    async def ids(**params: Any) -> tuple[list[str], bool]:
        page = await world.v1.products.list_async(params)
        return [row.id for row in page.data], page.has_more

    assert await ids() == (newest, False)
    assert await ids(limit=2) == (newest[:2], True)
    assert await ids(limit=2, starting_after=newest[1]) == (newest[2:4], True)
    assert await ids(limit=2, starting_after=newest[2]) == (newest[3:], False)
    assert await ids(limit=2, ending_before=newest[4]) == (newest[2:4], True)
    assert await ids(limit=5, ending_before=newest[2]) == (newest[:2], False)
    for wrong in ({"limit": 101}, {"limit": 0}, {"starting_after": "prod_none"}):
        with pytest.raises(stripe.InvalidRequestError):
            await ids(**wrong)


async def test_an_id_is_expanded_to_what_it_names_and_nothing_else_is(world: World) -> None:
    await world.price("base", unit_amount=2900)
    page = await world.v1.prices.list_async({"expand": ["data.product"]})
    assert page.data[0].product.name == "base"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await world.v1.prices.list_async({"expand": ["data.planet"]})
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await world.v1.prices.list_async({"expand": ["data.currency"]})


async def test_events_are_listed_by_type_time_and_place_for_thirty_days(world: World) -> None:
    await world.v1.products.create_async({"name": "a"})
    world.now[0] += 60
    customer = await world.v1.customers.create_async({})

    async def kinds(**params: Any) -> list[str]:
        return [event.type for event in (await world.v1.events.list_async(params)).data]

    assert await kinds() == ["customer.created", "product.created"]
    assert await kinds(types=["product.created", "price.created"]) == ["product.created"]
    assert await kinds(type="customer.*") == ["customer.created"]
    assert await kinds(created={"gte": NOW_S + 60}) == ["customer.created"]
    oldest = (await world.v1.events.list_async()).data[-1]
    assert await kinds(ending_before=oldest.id) == ["customer.created"]
    assert (await world.v1.events.retrieve_async(oldest.id)).type == "product.created"
    world.now[0] = NOW_S + 30 * 86_400 + 1
    assert await kinds() == ["customer.created"]
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.events.retrieve_async(oldest.id)
    assert customer.id


async def test_every_change_is_told_by_a_thin_event_as_well(world: World) -> None:
    customer = await world.v1.customers.create_async({})
    (snapshot,) = (await world.v1.events.list_async()).data
    (row,) = world.rows("v2.core.event")
    thin = await world.client.v2.core.events.retrieve_async(row["id"])
    assert (thin.type, thin.snapshot_event) == ("v1.customer.created", snapshot.id)
    assert row["related_object"] == {"id": customer.id, "type": "customer", "url": f"/v1/customers/{customer.id}"}
    with pytest.raises(stripe.InvalidRequestError):
        await world.client.v2.core.events.retrieve_async("evt_none")
