"""Errors in Stripe's shape: https://docs.stripe.com/api/errors."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An answer that says no. `fields` go into the `error` object beside type, code, message and param."""

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.headers = dict(headers or {})
        told = {"type": kind, "code": code, "message": message, "param": param, **(fields or {})}
        self.error: dict[str, Any] = {name: value for name, value in told.items() if value is not None}


def missing(noun: str, object_id: str, param: str = "id") -> ApiError:
    """What to raise where there is no such object: 404."""
    status = HTTPStatus.NOT_FOUND if param == "id" else HTTPStatus.BAD_REQUEST
    return ApiError(f"No such {noun}: '{object_id}'", status=status, code="resource_missing", param=param)


def not_built(what: str) -> ApiError:
    """What to raise for what Stripe has and the sandbox has not: 501, never a made-up answer."""
    return ApiError(
        f"The sandbox has not built {what}; Stripe has it. Try it with a test key of Stripe's.",
        status=HTTPStatus.NOT_IMPLEMENTED,
        kind="api_error",
        code="sandbox_not_built",
        headers={"Stripe-Should-Retry": "false"},
    )


def too_many(message: str, *, code: str = "rate_limit", headers: Mapping[str, str] | None = None) -> ApiError:
    """What to raise above a limit: 429. Stripe's client repeats it only where `Stripe-Should-Retry` says so."""
    return ApiError(message, status=HTTPStatus.TOO_MANY_REQUESTS, code=code, headers=headers)


def conflict(message: str, *, code: str) -> ApiError:
    """What to raise where another request is at work on the same: 409."""
    return ApiError(message, status=HTTPStatus.CONFLICT, code=code)
