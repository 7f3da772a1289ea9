"""Events that were given up, put back into their queues once what kept them from being counted is repaired."""

from typing import Any, Final

from metering.store.connect import StoreError, problem_of
from metering.store.keys import Keys
from metering.store.totals import Client

_PAGE: Final = 100

_CARRIED: Final = (b"org", b"to", b"box", b"offset")
"""What an entry of the queue consists of; the rest says why it was given up."""


async def retry_dead(client: Client, keys: Keys) -> int:
    """Put every entry back; how many. They count as accepted now, under their own ids, so twice is as good as once.

    Raises the 503 problems.
    """
    asked: Any = client
    put = 0
    try:
        for partition in range(keys.partitions):
            dead, queue = keys.shared("dead", partition), keys.shared("queue", partition)
            while entries := await asked.xrange(dead, count=_PAGE):
                for name, fields in entries:
                    carried = {key: fields[key] for key in _CARRIED if key in fields}
                    if carried:
                        await asked.xadd(queue, carried)
                    await asked.xdel(dead, name)
                    put += bool(carried)
    except StoreError as error:
        raise problem_of(error) from error
    return put
