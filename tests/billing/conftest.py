"""Billing tests run on real servers only."""

from tests.support.fixtures import store, unsynced_session

__all__ = ["store", "unsynced_session"]
