"""Stripe over HTTP: the verbs of `metering.billing.gateway` spoken by Stripe's own client.

The sandbox is reached through this same code; only `api_base` differs. What leaves here are plain dicts with exactly
what Stripe's JSON said (amounts with decimals stay strings), and errors of `metering.billing.errors`.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson
import stripe
from stripe import oauth_error

from metering.billing.errors import (
    Barred,
    Declined,
    GatewayError,
    KeyReused,
    NotThere,
    Refused,
    TooMany,
    Unknown,
    outcome_of,
)
from metering.billing.gateway import Params, StripeObject
from metering.billing.gateways.answers import StripeClock, error_of, is_object, retry_after_s, shortened, tells_an_error
from metering.billing.gateways.verbs import Call, Verbs
from metering.clock import Clock

API_VERSION: Final = stripe.api_version
"""The version of Stripe's API that the installed client was made for; sent with every call."""

RETRIES: Final = 2
"""How often the client itself repeats a read, or a write of the set-up, after 409, 5xx or a broken connection.

Never after 429, which it hands on. Pushes are repeated by the outbox alone: it keeps what was tried over restarts.
"""

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A page of 100 events has half a MB, and the largest subscriptions and invoices are smaller."""

_ID: Final = re.compile(r"\w[\w-]{0,254}", re.ASCII)
"""An id of Stripe's. An empty one would turn a read of one object into the list of all."""

_TEST_KEY: Final = re.compile(r"[sr]k_(?:test|sandbox)_")

ERRORS: Final[Mapping[type[stripe.StripeError], type[GatewayError]]] = {
    stripe.StripeError: Unknown,
    stripe.APIError: Unknown,
    stripe.APIConnectionError: Unknown,
    stripe.StripeErrorWithParamCode: Refused,
    stripe.CardError: Declined,
    stripe.InvalidRequestError: Refused,
    stripe.IdempotencyError: KeyReused,
    stripe.AuthenticationError: Barred,
    stripe.PermissionError: Barred,
    stripe.RateLimitError: TooMany,
    stripe.SignatureVerificationError: Refused,
    stripe.AlreadyCanceledError: Refused,
    stripe.BlockedByStripeError: Refused,
    stripe.CannotProceedError: Refused,
    stripe.CapabilityNotEnabledError: Barred,
    stripe.ControlledByAlternateResourceError: Refused,
    stripe.FeatureNotEnabledError: Barred,
    stripe.FinancialAccountNotOpenError: Refused,
    stripe.FxQuoteNeedsRefreshError: Refused,
    stripe.InsufficientFundsError: Refused,
    stripe.InvalidPaymentMethodError: Refused,
    stripe.InvalidPayoutMethodError: Refused,
    stripe.InvalidVaultedCredentialError: Refused,
    stripe.NotCancelableError: Refused,
    stripe.QuotaExceededError: Refused,
    stripe.RecipientNotNotifiableError: Refused,
    stripe.TemporarySessionExpiredError: Refused,
    stripe.VerificationAttemptFailedError: Refused,
    stripe.VerificationExpiredError: Refused,
    stripe.VerificationNotInitiatedError: Refused,
    oauth_error.OAuthError: Refused,
    oauth_error.InvalidClientError: Barred,
    oauth_error.InvalidGrantError: Refused,
    oauth_error.InvalidRequestError: Refused,
    oauth_error.InvalidScopeError: Refused,
    oauth_error.UnsupportedGrantTypeError: Refused,
    oauth_error.UnsupportedResponseTypeError: Refused,
}
"""What each error of the client means, unless the status says more (`_kind`). A test proves that none is missing."""

_MAYBE_DONE: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})
"""4xx that leave open whether it happened: a timeout, or the same key still in work (a 409)."""

_NOT_DONE: Final = HTTPStatus.MULTIPLE_CHOICES
"""From here on an answer says that it did not happen, or not as asked."""

_NOT_THERE: Final = frozenset({"resource_missing", "not_found"})
"""Codes of /v1 and of /v2. A 404 without one is a wrong address, not a missing object."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which a call is given up; each number has its reason."""

    connect_s: float = 2.0
    """TCP and TLS across an ocean take under half a second: a host that needs more is not there."""

    wait_s: float = 4.0
    """For a free one of the 100 connections, and then to connect. All are busy only when Stripe hangs."""

    read_s: float = 10.0
    """Between two pieces of an answer. Stripe's slowest usual answers (subscriptions, invoices) take 3 s."""

    attempt_s: float = 15.0
    """One attempt as a whole: an answer that drips a byte at a time ends, too."""

    call_s: float = 50.0
    """A verb with the client's own repeats: three attempts and their pauses of at most a second."""

    def aiohttp(self) -> aiohttp.ClientTimeout:
        """The same as the HTTP library has it."""
        return aiohttp.ClientTimeout(
            total=self.attempt_s, connect=self.wait_s, sock_connect=self.connect_s, sock_read=self.read_s
        )


class Transport(stripe.AIOHTTPClient):
    """The client's HTTP, with what it lacks: Stripe's clock, broken bodies as broken connections, foreign errors."""

    def __init__(self, timeouts: Timeouts, clock: StripeClock, pause: Callable[[float], Awaitable[None]]) -> None:
        super().__init__(timeout=timeouts.aiohttp())
        self._stripe_clock = clock
        self._pause = pause

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One attempt. Raises APIConnectionError where no answer of Stripe's came back whole."""
        args, settings = self._get_request_args_kwargs(method, url, headers, post_data)
        try:
            # A redirect would turn a push into a read of something else, and its answer into a success.
            async with self._session.request(*args, **settings, allow_redirects=False) as answer:
                self._stripe_clock.note(answer.headers)
                body = await _whole(answer)
        except Exception as error:  # noqa: BLE001 - whatever breaks, nobody knows what became of the request
            self._handle_request_error(error)
        told = answer.headers.copy()
        told.popall("Stripe-Notice", None)  # it would become a warning of Python, raised after the effect where so set
        if not (is_object(body) if answer.status < _NOT_DONE else tells_an_error(body)):
            raise _somebody_else(answer.status, told)
        return body, answer.status, told

    def sleep_async(self, secs: float) -> Awaitable[None]:
        """The pause before the client's own repeat."""
        return self._pause(secs)

    async def close_async(self) -> None:
        """Close the session; one that was never opened is not opened for it."""
        session: Any = self._cached_session
        if session is not None:
            await session.close()


class LiveGateway(Verbs):
    """The verbs of `Gateway` (see there), spoken to Stripe, or to whatever answers at `api_base`.

    One a process. `calls` counts what becomes of them (`metering.billing.errors.OUTCOMES`).

    Raises ValueError where a live key would meet anything but Stripe itself and the true time.
    """

    def __init__(
        self,
        api_key: str,
        *,
        clock: Clock,
        api_base: str | None = None,
        test_clock: bool = False,
        timeouts: Timeouts | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        calls: Counter[str] | None = None,
    ) -> None:
        self._calls = Counter[str]() if calls is None else calls
        self.livemode, self.answers = is_live(api_key), True
        if self.livemode and (api_base or test_clock):
            name = "STRIPE_API_BASE" if api_base else "TEST_CLOCK"
            raise ValueError(f"STRIPE_SECRET_KEY is no test key, and {name} is set: a live key goes to Stripe alone")
        _hush()
        self._timeouts = timeouts or Timeouts()
        self._stripe_clock = StripeClock(clock)
        self._transport = Transport(self._timeouts, self._stripe_clock, pause)
        client = stripe.StripeClient(
            api_key,
            base_addresses=addresses(api_base),
            max_network_retries=RETRIES,
            stripe_version=API_VERSION,
            http_client=self._transport,
        )
        super().__init__(client.v1, client.v2)
        self._raw = client.raw_request_async

    def stripe_ms(self) -> int | None:
        """Stripe's clock, at most a second and a way of the network behind; None before the first answer."""
        return self._stripe_clock.now_ms()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._transport.close_async()

    async def _ask(
        self, call: Call, *ids: str, params: Params | None = None, key: str | None = None, repeats: bool = True
    ) -> StripeObject:
        for some_id in ids:
            if _ID.fullmatch(some_id) is None:
                raise NotThere("that is no id of Stripe's")
        options: dict[str, Any] = {} if key is None else {"idempotency_key": key}
        if not repeats:
            options["max_network_retries"] = 0
        with self._heard():
            async with asyncio.timeout(self._timeouts.call_s):
                answer = await call(*ids, dict(params or {}), options)
        return _plain(answer.last_response)

    async def _follow(self, address: str) -> StripeObject:
        with self._heard():
            async with asyncio.timeout(self._timeouts.call_s):
                return _plain(await self._raw("get", address))

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Notes whether a call was answered; its error comes out as one of ours."""
        try:
            with _mapped():
                yield
        except GatewayError as error:
            self._calls[outcome_of(error)] += 1
            self.answers = error.settled and error.status != HTTPStatus.UNAUTHORIZED
            raise
        self._calls["ok"] += 1
        self.answers = True


def is_live(api_key: str) -> bool:
    """Whether real money moves with this key. Whatever is not marked as a test key is taken for a live one."""
    return _TEST_KEY.match(api_key) is None


def addresses(api_base: str | None) -> Any:
    """All four hosts of Stripe, or none of them: one left out would still be the real one."""
    return dict.fromkeys(("api", "connect", "files", "meter_events"), api_base.rstrip("/")) if api_base else None


def _hush() -> None:
    """No telemetry, which also writes a file into the user's folder, and no parameters in the log at DEBUG."""
    stripe.enable_telemetry = False
    logging.getLogger("stripe").setLevel(logging.WARNING)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body, unpacked. Raises ValueError for more than BODY_BYTES_MAX of it: a worker must not die of an answer."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise ValueError(f"an answer of more than {BODY_BYTES_MAX} bytes")
    return b"".join(pieces)


def _somebody_else(status: int, headers: Mapping[str, str]) -> stripe.StripeError:
    """What to raise for an answer of somebody on the way: HTML, or JSON of another shape."""
    made: Any = stripe.APIConnectionError  # its constructor has no types
    error: stripe.StripeError = made(
        f"HTTP {int(status)} that is no answer of Stripe's",
        http_status=status,
        headers=headers,
        should_retry=status >= HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    return error


def _plain(response: stripe.StripeResponse) -> StripeObject:
    """The JSON of an answer as Stripe sent it: the client's objects are no dicts, and make decimals of some texts."""
    body: StripeObject = orjson.loads(response.body)
    return body


@contextmanager
def _mapped() -> Iterator[None]:
    """What the client raises, as an error of ours; without a chain, which would hold whole answers."""
    try:
        yield
    except stripe.StripeError as error:
        raise gateway_error(error) from None
    except TimeoutError:
        raise Unknown("Stripe took too long") from None
    except RecursionError:
        raise Unknown("the answer is nested more deeply than any of Stripe's") from None


def gateway_error(error: stripe.StripeError) -> GatewayError:
    """The error of ours for an error of the client."""
    told = error_of(error.json_body)
    code = str(error.code or told.get("code") or "")
    return _kind(error, code)(
        shortened(str(error.user_message or type(error).__name__)),
        status=error.http_status,
        code=code,
        param=str(told.get("param") or ""),
        request_id=str(error.request_id or ""),
        retry_after_s=retry_after_s(error.headers or {}),
        intent_id=_intent_of(told),
    )


def _intent_of(told: Mapping[str, Any]) -> str:
    """The payment that an error is about: https://docs.stripe.com/api/errors#errors-payment_intent."""
    intent = told.get("payment_intent")
    return str(intent.get("id") or "") if isinstance(intent, dict) else ""


def _kind(error: stripe.StripeError, code: str) -> type[GatewayError]:
    """By status where it says more than the class."""
    kind, status = ERRORS.get(type(error), Unknown), error.http_status or 0
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return TooMany
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _MAYBE_DONE:
        return Unknown
    if type(error) is stripe.APIError and status >= 400 and error_of(error.json_body):  # noqa: PLR2004
        return Refused  # a 4xx that the client knows no class for
    return NotThere if kind is Refused and code in _NOT_THERE else kind
