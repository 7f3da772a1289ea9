"""The names of the organisations of a data set, and whose a mark of the log is."""

from collections.abc import AsyncIterator
from typing import Any, Final

from metering.org_marks import mark_of
from metering.store.connect import answered, text_of
from metering.store.keys import Keys
from metering.store.totals import Client

_PAGE: Final = 1_000
"""Names of one read: about 30 KB."""


async def names(client: Client, keys: Keys) -> AsyncIterator[str]:
    """Every organisation, by partition and name. Raises the 503 problems."""
    asked: Any = client
    for partition in range(keys.partitions):
        key, low, more = keys.shared("orgs", partition), "-", True
        while more:
            found = await answered(asked.zrangebylex(key, low, "+", 0, _PAGE))
            for raw in found:
                yield text_of(raw)
            more = len(found) == _PAGE
            low = f"({text_of(found[-1])}" if more else low


async def marked(client: Client, keys: Keys, secret: bytes, mark: str) -> str | None:
    """The organisation that the log shows as `mark`; all names are looked at, a few seconds for a million."""
    async for name in names(client, keys):
        if mark_of(name, secret) == mark:
            return name
    return None
