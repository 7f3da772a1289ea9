"""What a request has to be before anybody looks at what it is about."""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from metering.billing.gateway import API_VERSION
from metering.billing.sandbox.context import Options, Route
from metering.billing.sandbox.errors import ApiError, not_built, too_many
from metering.billing.sandbox.fields import TEXT, Many
from metering.billing.sandbox.forms import decoded
from metering.billing.sandbox.idempotency import fingerprint
from metering.billing.sandbox.table import Table

TEST_KEYS: Final = ("sk_sandbox_", "sk_test_", "rk_sandbox_", "rk_test_")

_EXPAND: Final = Many(TEXT, 20)


@dataclass(slots=True)
class Request:
    """One request; `route`, `ids`, `params`, `expand` and `print` are there once it was admitted."""

    id: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    now_s: int
    key: str = ""
    print: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    expand: frozenset[str] = frozenset()
    route: Route = field(init=False)

    @classmethod
    def of(cls, scope: Mapping[str, Any], body: bytes, request_id: str, now_s: int) -> "Request":
        """The request of an ASGI scope. Only writes of the caller's own making have an Idempotency-Key."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        keyed = scope["method"] == "POST" or (scope["method"] == "DELETE" and scope["path"].startswith("/v2/"))
        key = headers.get("idempotency-key", "") if keyed else ""
        query = scope["query_string"].decode("latin-1")
        return cls(request_id, scope["method"], scope["path"], query, headers, body, now_s, key)


class Door:
    """Lets requests in, one account's rate of them."""

    def __init__(self, table: Table, options: Options, stopwatch: Callable[[], float]) -> None:
        self._table, self._options, self._stopwatch = table, options, stopwatch
        self._since, self._left = stopwatch(), float(options.rate_per_s or 0)

    def admit(self, request: Request) -> None:
        """Fill in what the request means. Raises ApiError for one that Stripe would not look at."""
        _check_key(request.headers.get("authorization", ""), self._options.key)
        _check_version(request.headers.get("stripe-version", API_VERSION))
        found = self._table.find(request.method, request.path)
        if found is None:
            raise self._nothing(request)
        self._pay()
        request.route, request.ids = found
        params = _read(request)
        request.print = fingerprint(request.method, request.path, params)
        request.expand = frozenset(_EXPAND.read(params.pop("expand", []), "expand")) if _is_v1(request) else frozenset()
        request.params = request.route.fields.read(params)

    def _nothing(self, request: Request) -> ApiError:
        if self._table.is_known(request.method, request.path):
            return not_built(f"{request.method} {request.path}")
        return ApiError(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)

    def _pay(self) -> None:
        """One token of a bucket that holds a second's worth."""
        rate = self._options.rate_per_s
        if rate is None:
            return
        now = self._stopwatch()
        self._left = min(float(rate), self._left + (now - self._since) * rate)
        self._since = now
        if self._left < 1:
            raise too_many("Request rate limit exceeded. https://docs.stripe.com/rate-limits")
        self._left -= 1


def _is_v1(request: Request) -> bool:
    return request.route.version == 1


def _check_key(authorization: str, only: str | None) -> None:
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() == "basic":
        key = _basic(key)
    if key.startswith(TEST_KEYS) and (only is None or hmac.compare_digest(key.encode(), only.encode())):
        return
    if not key:
        raise ApiError("You did not provide an API key.", status=401)
    if "_live_" in key:
        raise ApiError("This is a sandbox: a live key is never taken here. Revoke it if it went astray.", status=401)
    raise ApiError(f"Invalid API Key provided: {key[:8]}***", status=401)


def _basic(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _check_version(version: str) -> None:
    if version != API_VERSION:
        raise ApiError(f"Invalid Stripe API version: {version}. The sandbox speaks {API_VERSION}.")


def _read(request: Request) -> dict[str, Any]:
    """The parameters as they came."""
    params = decoded(request.query)
    if not request.body:
        return params
    if _is_v1(request):
        return params | decoded(request.body.decode("utf-8", "replace"))
    try:
        told = orjson.loads(request.body)
    except ValueError as error:
        raise ApiError("The body is no JSON.", code="invalid_json") from error
    if not isinstance(told, dict):
        raise ApiError("The body is no object.", code="invalid_json")
    return params | told
