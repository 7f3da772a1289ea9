"""The pages of the sandbox: what payers press, and what its owner sees."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
import stripe

from metering.billing.sandbox.markup import BANNER
from tests.support.sandbox_world import HOUR_S, World, a_world, utc

START_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(START_S) as world:
        await world.plan()
        yield world


async def checkout(world: World, **params: Any) -> Any:
    """A session for the plan."""
    known = {
        "mode": "subscription",
        "client_reference_id": "org_1",
        "line_items": [{"price": world.prices["base"], "quantity": 1}, {"price": world.prices["over"]}],
        "subscription_data": {"metadata": {"org_id": "org_1"}, "billing_mode": {"type": "flexible"}},
        "success_url": "http://127.0.0.1:1/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:1/back",
    }
    return await world.v1.checkout.sessions.create_async({**known, **params})


async def test_who_pays_has_a_subscription_and_is_led_back(world: World) -> None:
    session = await checkout(world, customer_email="ada@example.org")
    assert (session.status, session.payment_status, session.subscription) == ("open", "unpaid", None)
    assert "29.00 USD" in (await world.page("GET", session.url))[2]
    status, address, _ = await world.page("POST", session.url, choice="pay")
    assert (status, address) == (303, f"http://127.0.0.1:1/done?session={session.id}")
    done = await world.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription", "line_items"]})
    assert (done.status, done.payment_status, done.client_reference_id) == ("complete", "paid", "org_1")
    assert (done.subscription.status, done.subscription.metadata.org_id) == ("active", "org_1")
    assert [line.quantity for line in done.line_items.data] == [1, None]
    customer = await world.v1.customers.retrieve_async(done.customer)
    assert customer.email == "ada@example.org"
    told = await world.events()
    assert told[-1] == "checkout.session.completed"
    assert {"customer.subscription.created", "invoice.paid"} <= set(told)


@pytest.mark.parametrize("choice", ["decline", "3ds"])
async def test_a_card_that_does_not_pay_makes_nothing_and_leaves_the_checkout_open(world: World, choice: str) -> None:
    session = await checkout(world)
    before = await world.events()
    status, _, text = await world.page("POST", session.url, choice=choice)
    assert (status, 'role="alert"' in text) == (402, True)
    assert (await world.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert (world.rows("subscription"), world.rows("invoice"), await world.events()) == ([], [], before)
    assert (await world.page("POST", session.url, choice="pay"))[0] == 303


async def test_who_goes_back_decides_nothing(world: World) -> None:
    session = await checkout(world)
    status, address, _ = await world.page("POST", session.url, choice="cancel")
    assert (status, address) == (303, "http://127.0.0.1:1/back")
    assert (await world.v1.checkout.sessions.retrieve_async(session.id)).status == "open"


async def test_a_checkout_is_open_for_a_day(world: World) -> None:
    session = await checkout(world)
    other = await checkout(world)
    assert (await world.v1.checkout.sessions.expire_async(other.id)).status == "expired"
    await world.at(START_S + 24 * HOUR_S)
    assert (await world.v1.checkout.sessions.retrieve_async(session.id)).status == "expired"
    status, _, text = await world.page("POST", f"{world.url}/c/pay/{session.id}", choice="pay")
    assert (status, "expired" in text) == (402, True)
    assert (await world.events()).count("checkout.session.expired") == 2


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"line_items": [{"price": "over", "quantity": 2}]}, stripe.InvalidRequestError),
        ({"line_items": [{"price": "base"}]}, stripe.InvalidRequestError),
        ({"success_url": "javascript:alert(1)"}, stripe.InvalidRequestError),
        ({"customer": "cus_nobody"}, stripe.InvalidRequestError),
        ({"mode": "setup"}, stripe.APIError),
        ({"subscription_data": {"trial_period_days": 7}}, stripe.APIError),
    ],
)
async def test_a_checkout_that_cannot_be_is_refused(
    world: World, params: dict[str, Any], error: type[Exception]
) -> None:
    for line in params.get("line_items", []):
        line["price"] = world.prices[line["price"]]
    with pytest.raises(error):
        await checkout(world, **params)


async def portal(world: World, customer: str) -> Any:
    """A session of the portal."""
    features = {"subscription_cancel": {"enabled": True}, "payment_method_update": {"enabled": True}}
    await world.v1.billing_portal.configurations.create_async({"features": features})
    params = {"customer": customer, "return_url": "http://127.0.0.1:1/account"}
    return await world.v1.billing_portal.sessions.create_async(params)


async def test_in_the_portal_a_subscription_is_cancelled_and_kept(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base")
    session = await portal(world, customer)
    seen = []
    for verb in ("cancel", "resume"):
        assert (await world.page("POST", session.url, verb=verb, value=subscription.id))[0] == 303
        now = await world.subscription(subscription.id)
        seen.append((now.cancel_at_period_end, now.cancel_at))
    assert seen == [(True, utc(2026, 4, 17, 10, 30)), (False, None)]
    assert (await world.events()).count("customer.subscription.updated") == 3  # the first: it became active


async def test_in_the_portal_a_card_is_changed_and_an_invoice_paid(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base")
    session = await portal(world, customer)
    assert (await world.page("POST", session.url, verb="card", value="decline"))[0] == 303
    await world.at(utc(2026, 4, 17, 11, 30))
    assert (await world.subscription(subscription.id)).status == "past_due"
    owed = (await world.invoices(customer))[-1]
    assert owed.number in (await world.page("GET", session.url))[2]
    await world.page("POST", session.url, verb="card", value="succeed")
    await world.page("POST", session.url, verb="pay", value=owed.id)
    assert (await world.subscription(subscription.id)).status == "active"


@pytest.mark.parametrize(("verb", "value"), [("card", "gold"), ("sell", "x"), ("", "")])
async def test_a_button_that_there_is_not_does_nothing(world: World, verb: str, value: str) -> None:
    session = await portal(world, await world.customer())
    assert (await world.page("POST", session.url, verb=verb, value=value))[0] == 400


async def test_a_portal_needs_settings(world: World) -> None:
    customer = await world.customer()
    with pytest.raises(stripe.InvalidRequestError, match="configuration"):
        await world.v1.billing_portal.sessions.create_async({"customer": customer})


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_the_audit_page_shows_everything_escaped_and_runs_no_script(world: World) -> None:
    evil = "<script>alert(1)</script>"
    customer = await world.v1.customers.create_async({"name": evil, "email": "ada@example.org"})
    await world.say("POST", "/sandbox/cards", customer=customer.id, card="succeed")
    await world.subscribe(customer.id, "base", "over")
    await world.use(customer.id, 10)
    await world.at(utc(2026, 4, 17, 11, 30))
    async with world.http.get(world.url) as answer:
        text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
    for shown in (BANNER, customer.id, "scans", "ada@example.org", "29.00 USD", "0.07 USD", "paid", "None yet."):
        assert shown in text
    elements = Tags(text).found
    assert evil not in text
    assert not [tag for tag, attributes in elements if tag == "script" or "style" in attributes]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/c/pay/cs_test_nobody", "/p/session/bps_nobody"])
async def test_a_page_of_nobody_is_not_there(world: World, path: str) -> None:
    assert (await world.page("GET", world.url + path))[0] == 404


async def test_a_final_invoice_has_a_page_and_a_pdf_and_a_draft_has_none(world: World) -> None:
    session = await checkout(world)
    await world.page("POST", session.url, choice="pay")
    (invoice,) = (await world.v1.invoices.list_async({"status": "paid"})).data
    assert invoice.hosted_invoice_url
    assert invoice.invoice_pdf
    status, _, text = await world.page("GET", invoice.hosted_invoice_url)
    assert status == 200
    assert invoice.number in text
    assert "Total: 29.00 USD" in text
    status, _, file = await world.page("GET", invoice.invoice_pdf)
    assert (status, file[:8], file[-6:]) == (200, "%PDF-1.4", "%%EOF\n")
    place = int(file.split("startxref\n")[1].split("\n")[0])
    assert file[place : place + 4] == "xref"
    assert "(Total: 29.00 USD) Tj" in file
    await world.at(utc(2026, 4, 17, 10, 31))
    (draft,) = (await world.v1.invoices.list_async({"status": "draft"})).data
    assert (draft.hosted_invoice_url, draft.invoice_pdf) == (None, None)
    early = invoice.hosted_invoice_url.replace(invoice.id, draft.id)
    for address in (f"{invoice.hosted_invoice_url}x", f"{invoice.invoice_pdf}/x", early):
        assert (await world.page("GET", address))[0] == 404


async def test_tax_is_worked_out_for_a_checkout_that_keeps_the_address_and_for_its_subscription(world: World) -> None:
    customer = await world.customer(None)
    asked: dict[str, Any] = {"customer": customer, "automatic_tax": {"enabled": True}}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await checkout(world, **asked)
    assert caught.value.code == "customer_tax_location_invalid"
    session = await checkout(world, **asked, customer_update={"address": "auto"})
    assert (session.automatic_tax.enabled, session.automatic_tax.status) == (True, "requires_location_inputs")
    await world.page("POST", session.url, choice="pay")
    done = await world.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription.latest_invoice"]})
    assert (done.automatic_tax.status, done.total_details.amount_tax) == ("complete", 0)
    taxed = done.subscription.automatic_tax
    assert (taxed.enabled, done.subscription.latest_invoice.automatic_tax.enabled) == (True, True)


async def test_an_address_is_kept_with_a_customer_alone(world: World) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="can only be used with `customer`"):
        await checkout(world, customer_update={"address": "auto"})
