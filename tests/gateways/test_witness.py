"""What reads along with the sandbox sees what Stripe would not have taken, and what it would not have said."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.stripe_objects import whole
from tests.support.stripe_witness import Witness, listen

FORM = "application/x-www-form-urlencoded"
CUSTOMER = whole("customer", id="cus_1")
REFUSAL = {"error": {"type": "invalid_request_error", "message": "No"}}


async def witnessed(path: str, sent: str, status: int, *pieces: bytes, ends: bool = True) -> list[str]:
    """The faults of one POST that was answered so."""

    async def app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        for number, piece in enumerate(pieces, start=1):
            more = number < len(pieces) or not ends
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": sent.encode()}

    async def send(message: Mapping[str, Any]) -> None:
        """Nobody listens."""

    witness = Witness(app)
    headers = [(b"content-type", FORM.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await witness(scope, receive, send)
    return witness.faults


def text(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("path", "sent", "status", "body"),
    [
        ("/v1/customers", "name=a", 200, text(CUSTOMER)),
        ("/v1/customers", "color=red", 400, text(REFUSAL)),
        ("/v1/customers", "name=a", 502, b"<html>"),
        ("/sandbox/run", "", 200, b"{}"),
    ],
)
async def test_what_stripe_could_have_said_is_no_fault(path: str, sent: str, status: int, body: bytes) -> None:
    assert await witnessed(path, sent, status, body[:5], body[5:]) == []


@pytest.mark.parametrize(
    ("sent", "status", "body", "fault"),
    [
        ("color=red", 200, text(CUSTOMER), "color"),
        ("name=a", 200, text({**CUSTOMER, "color": "red"}), "color"),
        ("name=a", 200, text({"id": "cus_1", "object": "customer"}), "livemode"),
        ("color=red", 400, b"{}", "error"),
        ("name=a", 200, b"{", "Expecting"),
    ],
)
async def test_what_stripe_could_not_have_said_is_one(sent: str, status: int, body: bytes, fault: str) -> None:
    (found,) = await witnessed("/v1/customers", sent, status, body)
    assert fault in found


async def test_an_answer_that_broke_off_says_nothing() -> None:
    assert await witnessed("/v1/customers", "name=a", 200, b"{", ends=False) == []


async def test_the_clients_own_http_is_listened_to_as_well() -> None:
    class Http:
        async def request_async(self, *_: Any) -> tuple[bytes, int, dict[str, str]]:
            return text({"id": "cus_1", "object": "customer"}), 200, {}

    http, faults = Http(), list[str]()
    listen(http, faults)
    url = "https://api.stripe.com/v1/customers"
    await http.request_async("post", url, {"Content-Type": FORM}, "color=red")
    assert ["color" in faults[0], "livemode" in faults[1]] == [True, True]
