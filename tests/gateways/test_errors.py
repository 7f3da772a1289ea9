"""Every error of Stripe's client, and every answer that is none, becomes one of ours."""

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import pytest
import stripe
from stripe import oauth_error

from metering.billing import errors
from metering.billing.errors import (
    Barred,
    Declined,
    Duplicate,
    GatewayError,
    KeyReused,
    NotThere,
    Refused,
    TooMany,
    Unknown,
)
from metering.billing.gateway import MeterEvent
from metering.billing.gateways.live import BODY_BYTES_MAX, ERRORS, LiveGateway, Timeouts, gateway_error
from tests.gateways.conftest import Build
from tests.support.scripted import Scripted, reset, silent, torn
from tests.support.wait import await_until

HUNG_S = 5.0
"""A hundred times as long as these tests wait for Stripe."""

EVENT = MeterEvent("overage", "cus_1", 12, 1_795_600_000, "window-a")


def classes(root: type[stripe.StripeError]) -> Iterator[type[stripe.StripeError]]:
    """A class of errors and all below it."""
    yield root
    for below in root.__subclasses__():
        yield from classes(below)


def test_every_class_of_the_clients_errors_has_its_own_row() -> None:
    assert oauth_error.OAuthError in set(classes(stripe.StripeError))
    assert set(classes(stripe.StripeError)) == set(ERRORS)


def test_every_error_of_ours_can_come_out() -> None:
    leaves = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)}
    assert leaves - set(ERRORS.values()) == {GatewayError, Duplicate, NotThere}, "those two are told by code and text"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "Missing required param: customer.", "param": "customer"}, Refused),
        (400, {"message": "No such price: 'x'", "code": "resource_missing", "param": "price"}, NotThere),
        (404, {"message": "No such customer: 'cus_1'", "code": "resource_missing"}, NotThere),
        (404, {"message": "Unrecognized request URL"}, Refused),
        (400, {"message": "Keys can only be used once", "type": "idempotency_error"}, KeyReused),
        (409, {"message": "In work", "type": "idempotency_error", "code": "idempotency_key_in_use"}, Unknown),
        (401, {"message": "Invalid API Key provided"}, Barred),
        (403, {"message": "The key does not have the permission"}, Barred),
        (402, {"message": "Declined", "type": "card_error", "code": "authentication_required"}, Declined),
        (429, {"message": "Too many requests", "code": "rate_limit"}, TooMany),
        (400, {"message": "Too many requests", "code": "rate_limit"}, TooMany),
        (405, {"message": "Method not allowed"}, Refused),
        (500, {"message": "Oh", "type": "api_error"}, Unknown),
        (503, {"message": "Oh", "type": "api_error"}, Unknown),
    ],
)
async def test_an_error_of_stripe_is_told_by_what_it_means(
    stripe_says: Scripted, gateway: LiveGateway, status: int, error: dict[str, Any], kind: type[GatewayError]
) -> None:
    stripe_says.refuse(status, headers={"Request-Id": "req_1"}, **error)
    with pytest.raises(GatewayError) as caught:
        await gateway.send_meter_event(EVENT, attempt=1)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.request_id) == (status, "req_1")
    assert caught.value.message == error["message"]
    assert (caught.value.code, caught.value.param) == (error.get("code", ""), error.get("param", ""))


@pytest.mark.parametrize(("intent", "told"), [({"id": "pi_1"}, "pi_1"), (None, ""), ("pi_2", "")])
async def test_a_declined_card_tells_of_which_payment(
    stripe_says: Scripted, gateway: LiveGateway, intent: object, told: str
) -> None:
    stripe_says.refuse(402, type="card_error", code="card_declined", payment_intent=intent)
    with pytest.raises(Declined) as caught:
        await gateway.create_payment_intent({"amount": 5}, key="k")
    assert caught.value.intent_id == told


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("not_found", NotThere), ("already_canceled", Refused), ("rate_limit", TooMany), ("feature_not_enabled", Barred)],
)
async def test_an_error_of_the_second_api_is_told_by_what_it_means(
    stripe_says: Scripted, gateway: LiveGateway, kind: str, expected: type[GatewayError]
) -> None:
    stripe_says.refuse(404 if kind == "not_found" else 400, type=kind, code=kind, message="so it is")
    with pytest.raises(GatewayError) as caught:
        await gateway.thin_event("evt_1")
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>502 Bad Gateway</html>", 502),
        (b"<html>Forbidden by a proxy</html>", 403),
        (b'{"message": "no route"}', 404),
        (b'{"error": null}', 400),
        (b'{"error": "unauthorized"}', 401),
        (b"", 302),
        (b"\xff\xfe", 500),
        (b"<html>Welcome to the hotel</html>", 200),
        (b"[]", 200),
        (b"null", 200),
        (b'"yes"', 200),
        (b"\xff", 200),
        (b"{}", 200),
        (b'{"status": "maintenance"}', 200),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", 200),
    ],
)
async def test_an_answer_of_somebody_else_leaves_it_open(
    stripe_says: Scripted, gateway: LiveGateway, body: bytes, status: int
) -> None:
    stripe_says.answer(body, status)
    with pytest.raises(Unknown):
        await gateway.send_meter_event(EVENT, attempt=1)


async def test_a_redirect_is_not_followed(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(b"", 302, headers={"Location": stripe_says.url + "/v1/elsewhere"})
    stripe_says.answer({"object": "billing.meter_event"})
    with pytest.raises(Unknown):
        await gateway.send_meter_event(EVENT, attempt=1)
    assert len(stripe_says.requests) == 1


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_an_endless_answer_is_not_read_to_its_end(
    stripe_says: Scripted, gateway: LiveGateway, packed: bool
) -> None:
    body = b'{"object": "billing.meter_event", "a": "' + b"x" * BODY_BYTES_MAX + b'"}'
    stripe_says.answer(gzip.compress(body) if packed else body, headers={"Content-Encoding": "gzip"} if packed else {})
    with pytest.raises(Unknown):
        await gateway.send_meter_event(EVENT, attempt=1)


async def test_an_invoice_item_is_there_when_stripe_says_so(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"status": "maintenance"})
    with pytest.raises(Unknown):
        await gateway.create_invoice_item({"customer": "cus_1"}, key="k")


@pytest.mark.parametrize("rows", [[None], [1], {"a": 1}], ids=str)
async def test_a_list_of_something_else_leaves_it_open(
    stripe_says: Scripted, gateway: LiveGateway, rows: object
) -> None:
    stripe_says.answer({"data": rows, "has_more": True})
    with pytest.raises(Unknown):
        await gateway.subscriptions("cus_1")


async def test_a_proxy_that_says_too_many_is_heard(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(b"<html>slow down</html>", 429, headers={"Retry-After": "7"})
    with pytest.raises(TooMany) as caught:
        await gateway.send_meter_event(EVENT, attempt=1)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("play", [reset, torn])
async def test_a_broken_connection_leaves_it_open(stripe_says: Scripted, gateway: LiveGateway, play: object) -> None:
    stripe_says.play(play)  # type: ignore[arg-type]
    with pytest.raises(Unknown):
        await gateway.send_meter_event(EVENT, attempt=1)
    assert len(stripe_says.requests) == 1


async def test_nobody_there_leaves_it_open(build: Build) -> None:
    with pytest.raises(Unknown):
        await build(api_base="http://127.0.0.1:1").send_meter_event(EVENT, attempt=1)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
@pytest.mark.parametrize("name", ["read_s", "attempt_s", "call_s"])
async def test_row_7_a_silent_stripe_is_given_up(stripe_says: Scripted, build: Build, said: bytes, name: str) -> None:
    over = asyncio.Event()
    stripe_says.play(silent(over, said))
    timeouts = Timeouts(**{name: 0.05})
    gateway = build(timeouts=timeouts)
    async with asyncio.timeout(HUNG_S):
        with pytest.raises(Unknown):
            await gateway.send_meter_event(EVENT, attempt=1)
    assert not gateway.answers
    over.set()


async def test_a_cancelled_call_is_cancelled(stripe_says: Scripted, gateway: LiveGateway) -> None:
    over = asyncio.Event()
    stripe_says.play(silent(over))
    call = asyncio.create_task(gateway.account())
    await await_until(lambda: stripe_says.requests, timeout_s=5, what="the call is on its way")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    over.set()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Wed, 25 Nov 2026 12:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e300", 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
    ],
)
async def test_retry_after_is_read(
    stripe_says: Scripted, gateway: LiveGateway, text: str, seconds: float | None
) -> None:
    stripe_says.refuse(429, message="Too many", headers={"Retry-After": text})
    with pytest.raises(TooMany) as caught:
        await gateway.account()
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("", "An event already exists with identifier window-a", Duplicate),
        ("duplicate_meter_event", "identifier window-a was used", Duplicate),
        ("duplicate_meter_event", "used before", Refused),
        ("", "An event already exists with identifier another", Refused),
        ("", "The value of window-a is not a number", Refused),
    ],
)
async def test_a_duplicate_is_known_by_its_words_and_our_identifier(
    stripe_says: Scripted, gateway: LiveGateway, code: str, message: str, kind: type[Refused]
) -> None:
    stripe_says.refuse(400, code=code, message=message)
    with pytest.raises(Refused) as caught:
        await gateway.send_meter_event(EVENT, attempt=1)
    assert type(caught.value) is kind
    assert caught.value.message == message


async def test_no_other_verb_knows_a_duplicate(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.refuse(400, message="An event already exists with identifier window-a")
    with pytest.raises(Refused) as caught:
        await gateway.create_invoice_item({"customer": "cus_1"}, key="window-a")
    assert type(caught.value) is Refused


def test_an_error_holds_neither_keys_nor_whole_pages() -> None:
    said = gateway_error(stripe.AuthenticationError("Invalid API Key provided: sk_test_abc123\n" + "x" * 1000))
    assert said.message.startswith("Invalid API Key provided: [redacted] xxx")
    assert len(said.message) == 300


@pytest.mark.parametrize(
    ("status", "answers"), [(400, True), (403, True), (404, True), (429, True), (401, False), (500, False)]
)
async def test_row_7_a_call_tells_whether_stripe_answers(
    stripe_says: Scripted, gateway: LiveGateway, status: int, answers: bool
) -> None:
    assert gateway.answers
    stripe_says.refuse(status, message="no")
    with pytest.raises(GatewayError):
        await gateway.send_meter_event(EVENT, attempt=1)
    assert gateway.answers is answers
    stripe_says.plays.clear()
    stripe_says.answer({"id": "acct_1"})
    await gateway.account()
    assert gateway.answers
