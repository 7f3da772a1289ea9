"""What rests in the store with ENCRYPTION_KEYS: none of Stripe's ids but those that are told of, also in its files."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from pydantic import SecretStr

from metering.app import secrets_of
from metering.auth import ADMIN
from metering.clock import SystemClock
from metering.encryption_tasks import MISSING, OLDER, PRESENT, Left, rotate, status
from metering.settings import Settings, StoreKind
from metering.store.connect import connect
from metering.store.gate import GateReport, run_gate
from metering.store.keys import Keys
from metering.store_access import AccessError
from tests.service.running import SECRET, problem, token
from tests.support.selling import with_packages
from tests.support.shop import KEY, TAKES_S, Shop, shop
from tests.support.wait import wait_until

ONE, TWO = f"k1:{'1' * 43}", f"k2:{'2' * 42}0"

KINDS: Final = ("customers", "subscriptions", "invoices", "payment_intents", "charges", "refunds", "checkout/sessions")
"""What Stripe knows of people and of what they paid."""

# Not in the middle of a box: base64 has letters and underscores too.
OF_PEOPLE: Final = re.compile(rb"(?<![\w.-])(?:cus|sub|si|in|ii|pi|pm|ch|re|py|cs|seti|txn)_(?=\w*[A-Z0-9])\w{8,}")


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop in which acme bought a plan and used more than it has, bought credits, and had a part given back."""
    catalogue = with_packages(tmp_path_factory.mktemp("catalogue"))
    with shop(catalogue, "/webhooks/stripe", encryption_keys=f"{ONE},{TWO}", overage_push_s=0.1) as open_shop:
        _walk(open_shop)
        yield open_shop


def _walk(sold: Shop) -> None:
    sold.pay(sold.call("acme", "POST", "/v1/billing/checkout", json={"plan": "professional"})["url"])
    sold.on_plan("acme", "professional")
    begun = sold.call("acme", "POST", "/billing/create-payment-intent", json={"credit_amount": 500})
    intent = begun["payment_intent_id"]
    httpx2.post(f"{sold.stripe}/sandbox/payments", json={"payment_intent": intent, "method": "4242424242424242"})
    sold.call("acme", "POST", "/billing/confirm-payment", json={"payment_intent_id": intent})
    sold.call("acme", "POST", "/usage/track", json={"feature": "scans", "quantity": 1600})
    body = {"payment_intent_id": intent, "reason": "asked for", "amount": 900}
    sent = sold.service.call("POST", "/billing/refund", token(None, ADMIN), json=body, headers={"Idempotency-Key": "r"})
    assert sent.status_code == 201, sent.text
    sold.tell()
    wait_until(lambda: _billed(sold), timeout_s=TAKES_S, what="overage is at Stripe")
    wait_until(lambda: "charge.refunded" in _kinds(sold), timeout_s=TAKES_S, what="the refund is told of")


def _billed(sold: Shop) -> bool:
    return bool(sold.call("acme", "GET", "/usage")["features"]["scans"]["overage_billed"])


def _audit(sold: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sold.service.call(
        "GET", "/v1/audit", token(None, ADMIN), params={"org_id": "acme", "limit": 200}
    ).json()["data"]
    return found


def _kinds(sold: Shop) -> set[str]:
    return {entry["type"] for entry in _audit(sold)}


def _at_stripe(sold: Shop, kind: str) -> set[str]:
    """The ids of all objects of a kind."""
    found = httpx2.get(f"{sold.stripe}/v1/{kind}", headers={"Authorization": f"Bearer {KEY}"}).json()["data"]
    return {one["id"] for one in found}


def _files(sold: Shop) -> bytes:
    """All that the store has ever written: every command that changed something is in its log as it was."""
    folder = sold.service.server_store.folder / "appendonlydir"
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_no_id_of_a_customer_or_payment_was_ever_written(sold: Shop) -> None:
    written = _files(sold)
    assert b"acme" in written
    assert b"v1.k1." in written
    for kind in KINDS:
        ids = _at_stripe(sold, kind)
        assert ids or kind == "refunds", kind
        assert [one for one in ids if one.encode() in written] == [], kind
    assert set(OF_PEOPLE.findall(written)) == set()


def test_what_is_left_plain_is_the_names_of_events(sold: Shop) -> None:
    """As docs/operations.md says: a script looks their marks up, and they tell nothing without Stripe's own key."""
    prefixes = {
        found.partition(b"_")[0] for found in re.findall(rb"(?<![\w.-])[a-z]{2,6}_(?=\w*[A-Z])\w{14,}", _files(sold))
    }
    assert prefixes <= {b"evt"}


def test_whoever_may_see_them_sees_them_as_before(sold: Shop) -> None:
    (customer,) = _at_stripe(sold, "customers")
    (intent,) = {one for one in _at_stripe(sold, "payment_intents") if one in str(_audit(sold))}
    assert sold.call("acme", "GET", "/usage")["stripe_customer_id"] == customer
    lines = sold.call("acme", "GET", "/v1/credits/transactions")["data"]
    assert intent in {line["stripe_payment_intent_id"] for line in lines}
    assert all(entry["details"]["event"].startswith("evt_") for entry in _audit(sold) if "event" in entry["details"])
    windows = sold.service.call("GET", "/v1/stripe/outbox", token(None, ADMIN), params={"state": "delivered"})
    assert {one["customer"] for one in windows.json()["data"]} == {customer}


def _settings(sold: Shop, keys: str) -> Settings:
    url = SecretStr(sold.service.server_store.url)
    return Settings(redis_url=url, jwt_secret=SecretStr(SECRET), encryption_keys=SecretStr(keys))


def test_a_rotation_beside_the_service_leaves_nothing_under_the_older_key(sold: Shop) -> None:
    before = asyncio.run(status(_settings(sold, f"{TWO},{ONE}")))
    assert [(one.key_id, one.standing) for one in before] == [("k2", PRESENT), ("k1", OLDER)]
    assert before[0].values == 0
    replaced, after = asyncio.run(rotate(_settings(sold, f"{TWO},{ONE}")))
    assert after == [Left("k2", replaced, PRESENT), Left("k1", 0, OLDER)]
    assert replaced == before[1].values > 5
    assert asyncio.run(status(_settings(sold, TWO))) == [Left("k2", replaced, PRESENT)]
    test_whoever_may_see_them_sees_them_as_before(sold)
    sold.call("beta", "POST", "/usage/track", json={"feature": "scans", "quantity": 1})  # by the older ring's first
    assert Left("k1", 1, MISSING) in asyncio.run(status(_settings(sold, TWO)))


async def _gate(settings: Settings) -> GateReport:
    async with connect(settings.store_url()) as client:
        return await run_gate(client, settings, SystemClock(), kind=StoreKind.EMBEDDED)


@pytest.mark.parametrize("keys", ["", f"k3:{'3' * 42}0"])
def test_a_data_set_whose_key_is_missing_is_not_opened(sold: Shop, keys: str) -> None:
    settings = _settings(sold, keys or TWO).model_copy(update={} if keys else {"encryption_keys": None})
    with pytest.raises(AccessError, match="the data set is encrypted under the key 'k2', which is not there") as caught:
        asyncio.run(status(settings))
    assert "ENCRYPTION_KEYS" in caught.value.cure
    report = asyncio.run(_gate(settings))
    assert [check.name for check in report.failures] == ["ENCRYPTION_KEYS"]


def test_an_organisation_whose_key_is_missing_is_refused_and_no_other(sold: Shop) -> None:
    store, name = sold.service.store, Keys(64).profile("lost")
    sold.call("lost", "POST", "/usage/track", json={"feature": "scans", "quantity": 1})
    store.hset(name, "key", store.hget(name, "key").replace(b"v1.k1.", b"v1.gone."))
    refused = problem(sold.service.call("GET", "/usage", token("lost")), 503, "encryption-key-unknown")
    assert refused["retryable"]
    assert sold.call("acme", "GET", "/usage")["plan"] == "professional"


def test_a_value_that_was_moved_to_another_organisation_is_refused(sold: Shop) -> None:
    store, keys = sold.service.store, Keys(64)
    sold.call("thief", "POST", "/usage/track", json={"feature": "scans", "quantity": 1})
    store.hset(keys.profile("thief"), "stripe_customer", store.hget(keys.profile("acme"), "stripe_customer"))
    problem(sold.service.call("GET", "/usage", token("thief")), 503, "org-corrupt")


def test_without_keys_a_rotation_says_what_to_set(sold: Shop) -> None:
    settings = _settings(sold, TWO).model_copy(update={"encryption_keys": None})
    with pytest.raises(AccessError, match="there is no key"):
        asyncio.run(rotate(settings))


def test_the_log_hides_each_key_by_itself(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, encryption_keys=SecretStr(f"{ONE}, {TWO}"))
    assert {"1" * 43, "2" * 42 + "0"} <= set(secrets_of(settings))
