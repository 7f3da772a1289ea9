"""Faults are injected into real servers only."""

from tests.support.fixtures import each_store, each_store_session, store, store_session

__all__ = ["each_store", "each_store_session", "store", "store_session"]
