"""Script tests run on real servers only."""

from tests.support.fixtures import (
    client,
    cluster,
    cluster_session,
    each_store,
    each_store_session,
    store,
    unsynced_session,
)

__all__ = ["client", "cluster", "cluster_session", "each_store", "each_store_session", "store", "unsynced_session"]
