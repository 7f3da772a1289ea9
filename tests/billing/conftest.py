"""Billing tests run on real servers only."""

from tests.support.fixtures import store, store_session

__all__ = ["store", "store_session"]
