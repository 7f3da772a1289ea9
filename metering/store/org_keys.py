"""Every key that belongs to one organisation alone, found by walking the store: no list of them could be complete."""

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

from metering.store.connect import answered, text_of
from metering.store.keys import SHAPES, Keys
from metering.store.totals import Client

_PAGE: Final = 5000
"""Keys of the whole store that one SCAN looks at: about 2 ms in which the store does nothing else."""

_OF_AN_ORG: Final = tuple((shape.name, shape.regex()) for shape in SHAPES if "<org>" in shape.pattern)


async def pages(client: Client, match: str) -> AsyncIterator[list[str]]:
    """The keys of the whole store that match, some at a time; a key may come twice, and a page be empty."""
    asked: Any = client
    cursor = -1
    while cursor:
        cursor, page = await answered(asked.scan(max(cursor, 0), match=match, count=_PAGE))
        yield [text_of(key) for key in page]


async def keys_of(client: Client, keys: Keys, org_id: str) -> dict[str, list[str]]:
    """An organisation's keys by the name of their shape. Looks at every key: a second for some millions of them."""
    tag = keys.record(org_id).partition(":")[0]
    found: dict[str, set[str]] = defaultdict(set)
    async for page in pages(client, f"{tag}:?:{org_id}*"):
        for key in page:
            for name, regex in _OF_AN_ORG:
                match = regex.fullmatch(key)
                if match and match["org"] == org_id:
                    found[name].add(key)
    return {name: sorted(some) for name, some in found.items()}
