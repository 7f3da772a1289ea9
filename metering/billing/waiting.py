"""Calls of Stripe that somebody waits for in front of a page: bounded in time, their errors told as problems."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import structlog

from metering.billing.errors import Barred, Declined, GatewayError, Refused, Unknown
from metering.billing.gateway import Params, StripeObject
from metering.errors import CustomerUnknown, PaymentFailed, Problem, StripeFailed, StripeUnavailable

PATIENCE_S: Final = 20.0
"""Somebody waits in front of a page; Stripe's slowest usual answers take 3 s, and there are up to four."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def waiting(purpose: str) -> AsyncIterator[None]:
    """Inside, Stripe is asked for the sake of `purpose`. Raises CustomerUnknown, PaymentFailed, StripeFailed,
    StripeUnavailable.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except GatewayError as error:
        raise problem_of(error, purpose) from error
    except TimeoutError as error:
        raise StripeUnavailable from error


async def once(create: Callable[..., Awaitable[StripeObject]], params: Params, key: str) -> StripeObject:
    """Make something under a key. Stripe keeps an answer of 500 for a day too: after one another key is tried, as two
    customers or two sessions harm nobody, and an organisation that cannot buy for a day is harmed.
    """
    try:
        return await create(params, key=key)
    except Unknown as error:
        if error.status is None or error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return await create(params, key=f"{key}:again")


def problem_of(error: GatewayError, purpose: str) -> Problem:
    """The problem that the caller sees; Stripe's own words go to them only where they are about the request."""
    told: dict[str, Any] = {"stripe_code": error.code, "stripe_request_id": error.request_id}
    if isinstance(error, Refused) and error.param == "customer":
        return CustomerUnknown(**told)
    if isinstance(error, Declined):
        return PaymentFailed(error.message, **told)
    if isinstance(error, Refused):
        log.error("stripe refused a call", purpose=purpose, message=error.message, param=error.param, **told)
        return StripeFailed("" if isinstance(error, Barred) else error.message, **told)
    log.warning("stripe did not answer a call", purpose=purpose, message=error.message, **told)
    return StripeUnavailable()
