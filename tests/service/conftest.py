"""One running service for the whole session; tests keep apart by organisations of their own."""

import secrets
from collections.abc import Iterator

import pytest

from tests.service.running import Running


@pytest.fixture(scope="session")
def service() -> Iterator[Running]:
    """The service on a store of its own."""
    with Running() as running:
        yield running


@pytest.fixture
def org() -> str:
    """An organisation nobody has used before."""
    return f"org-{secrets.token_hex(6)}"
