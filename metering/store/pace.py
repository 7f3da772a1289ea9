"""The pace of calls to Stripe, kept by the store for all workers together."""

from typing import TYPE_CHECKING, Any, Final

from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.scripts import script

if TYPE_CHECKING:
    from redis.asyncio import Redis

_US_PER_S: Final = 1_000_000

_BURST_S: Final = 0.25
"""Calls may come that much before their place: a quarter of a second's worth at once, after a pause."""


class StorePace:
    """At most `rate` calls a second, whoever makes them. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, rate: int, *, fake: bool = False) -> None:
        self._key = keys.shared("stripe", 0)
        self._words = [_US_PER_S // rate, int(_BURST_S * _US_PER_S)]
        self._pace: Any = client.register_script(script("pace", fake=fake).text)

    async def wait_s(self) -> float:
        """0: go. Otherwise seconds after which to ask again; no place was taken."""
        return int(await answered(self._pace(keys=[self._key], args=self._words))) / _US_PER_S
