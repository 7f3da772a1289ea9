"""Every call that the sandbox has built, and every other call that Stripe has."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from metering.billing.sandbox import (
    account,
    adjustments,
    charges,
    checkouts,
    customers,
    disputes,
    endpoints,
    events,
    invoice_calls,
    meter_events,
    meters,
    methods,
    payment_calls,
    portal_configurations,
    portals,
    prices,
    refunds,
    subscription_calls,
)
from metering.billing.sandbox.context import Route

_NOUNS: Final = (
    account,
    adjustments,
    charges,
    checkouts,
    customers,
    disputes,
    endpoints,
    events,
    invoice_calls,
    meter_events,
    meters,
    methods,
    payment_calls,
    portal_configurations,
    portals,
    prices,
    refunds,
    subscription_calls,
)

ROUTES: Final[tuple[Route, ...]] = tuple(route for noun in _NOUNS for route in noun.ROUTES)
"""The calls by noun; a module with handlers ends in a `ROUTES` of its own."""

_KNOWN: Final = Path(__file__).with_name("known_calls.txt")
"""Verb and path of every call of Stripe's client; a test holds the file to the client that is installed."""


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        # A literal path is found before one with a parameter in its place.
        ordered = sorted(routes, key=lambda route: route.path.count("{"))
        self._routes = [(route, pattern(route.path)) for route in ordered]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a request and the parameters in its path; None where nothing was built for it."""
        for route, regex in self._routes:
            match = regex.fullmatch(path) if route.method == method else None
            if match:
                return route, match.groupdict()
        return None

    @staticmethod
    def is_known(method: str, path: str) -> bool:
        """Whether Stripe has this call, built here or not."""
        return any(verb == method and regex.fullmatch(path) for verb, regex in _known())


def pattern(path: str) -> re.Pattern[str]:
    """`/v1/customers/{customer}` as an expression with a group for each parameter."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)))


@cache
def _known() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(_read())


def _read() -> Iterator[tuple[str, re.Pattern[str]]]:
    for line in _KNOWN.read_text(encoding="utf-8").splitlines():
        method, path = line.split(" ")
        yield method, pattern(path)
