"""finish.lua has no life of its own: what it does is held, together with begin.lua, in test_begin.py.

Here stands what only it can meet: a store that is full, and a key that somebody else wrote.
"""

import pytest
from redis.exceptions import ResponseError

from metering.store.connect import connect
from tests.lua.test_begin import PLACE, begin, finish
from tests.support.servers import StoreServer


@pytest.mark.parametrize("answer", ["done", ""])
async def test_a_key_of_another_type_stops_finish_before_it_writes(each_store: StoreServer, answer: str) -> None:
    async with connect(each_store.url) as client:
        await client.set(PLACE, "junk")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await finish(client, "a", answer)
        assert await client.get(PLACE) == b"junk"


async def test_a_full_store_keeps_no_answer_and_leaves_the_try_to_its_lease(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        before = await client.dump(PLACE)
        await client.config_set("maxmemory", "1")
        try:
            with pytest.raises(ResponseError):
                await finish(client, "a", "done")
            assert await client.dump(PLACE) == before
        finally:
            await client.config_set("maxmemory", "0")
