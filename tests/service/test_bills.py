"""What happened to the bills of an organisation."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from metering.auth import ADMIN, BILLING_READ
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.connect import connect, normalise_url
from metering.store.credits import Credits
from metering.store.fields import FieldCodec
from metering.store.grants import By, GrantOrder
from metering.store.keys import Keys
from metering.store.orgs import Orgs
from metering.store.timing import StoreTime
from plans.catalogue import parse
from plans.credits import Kind
from tests.service.running import Running, problem, token


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture
def used(service: Running, org: str) -> str:
    """An organisation with 12 scans of 10, whose scans are now blocked, and no limit of requests."""
    service.track(org_id=org, feature="scans", quantity=12)
    told = {"org_id": org, "limits": {"api_requests": None}, "on_limit": {"scans": "block"}}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=told).status_code == 200
    return org


def get(service: Running, path: str, org: str, **wanted: Any) -> Any:
    """The answer for the organisation, which only asks what it may."""
    answer = service.call("GET", path, token(org, BILLING_READ), params=wanted)
    assert answer.status_code == 200
    return answer.json()


def test_history_tells_the_newest_first_and_not_who_did_it(service: Running, used: str) -> None:
    first, second = get(service, "/v1/billing/history", used)["data"][:2]
    assert (first["type"], second["type"]) == ("org_updated", "overage_started")
    assert second["details"]["used"] == 12
    assert not {"reason", "request_id", "actor"} & set(first["details"])


def test_pages_of_history_follow_each_other_to_its_beginning(service: Running, used: str) -> None:
    whole = get(service, "/v1/billing/history", used)["data"]
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(service, "/v1/billing/history", used, limit=1, **({"cursor": cursor} if cursor else {}))
        found, cursor = found + page["data"], page["next_cursor"]
    assert (found, found[-1]["type"]) == (whole, "org_created")
    problem(service.call("GET", "/v1/billing/history", token(used), params={"cursor": "x"}), 422, "validation")


def test_history_names_the_payment_and_the_refund_at_stripe(service: Running, used: str) -> None:
    asyncio.run(paid_and_given_back(service, used))
    back, paid = get(service, "/v1/billing/history", used)["data"][:2]
    assert (back["type"], back["stripe_refund_id"], back["stripe_payment_intent_id"]) == (
        "credits_taken_back", "re_1", None,
    )  # fmt: skip
    assert (paid["type"], paid["stripe_payment_intent_id"], paid["details"]["credits"]) == (
        "credits_granted", "pi_1", 500,
    )  # fmt: skip


async def paid_and_given_back(service: Running, org: str) -> None:
    """500 credits, of which 100 are taken back."""
    client = connect(normalise_url(service.server_store.url, database=2))
    keys, time, codec = Keys(64), StoreTime(SystemClock()), FieldCodec()
    orgs = Orgs(client, keys, parse(*Settings().plans_text()), time, codec, fake=False)
    credits_ = Credits(client, keys, orgs, time, codec)
    by = By("stripe", "paid")
    await credits_.grant(org, GrantOrder("cg_1", 500, Kind.PAID, source={"payment_intent": "pi_1"}), by)
    await credits_.take_back(org, "cg_1", 100, by, ticket=1, ref="re_1")
    await client.aclose()


@pytest.mark.parametrize("cursor", ["0-0", "0-1", "x"])
def test_no_page_comes_before_the_first_instant(service: Running, org: str, cursor: str) -> None:
    """The store refuses `(0-0`: there is nothing that it could leave out."""
    service.track(org_id=org, feature="scans")
    answer = service.call("GET", "/v1/billing/history", token(org), params={"cursor": cursor})
    problem(answer, 422, "validation")
