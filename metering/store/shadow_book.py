"""How far a second account of Stripe was told, and who pays there: one place of the data set."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from metering.store.connect import answered, text_of
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.totals import Client
from metering.store.window_lists import Place

_PLACE: Final = 0
"""The partition that holds what belongs to the data set as a whole."""

LEASE_S: Final = 120
"""For so long one worker alone tells; a page of windows takes some seconds."""

_LIST: Final = "settled"

CUSTOMER: Final = "c:"
"""How fields begin that hold a customer of the second account. Older ones hold the bare id."""


class Outcome(StrEnum):
    """What became of a window at the second account."""

    TOLD = "told"
    REFUSED = "refused"
    TOO_OLD = "too_old"
    PASSED = "passed"  # no meter ever was told of it


class ShadowBook:
    """The place of one data set. `worker` names who holds the lease. Errors of the store come out as 503 problems."""

    def __init__(self, client: Client, keys: Keys, codec: FieldCodec, worker: str) -> None:
        self._client: Any = client
        self.partitions, self._codec = keys.partitions, codec
        self._key = keys.shared("shadow", _PLACE)
        self._lease, self._worker = keys.shared("shadowing", _PLACE), worker

    async def lease(self) -> bool:
        """Whether this worker is the one that tells. An old holder may tell the same once more: it counts once."""
        if await answered(self._client.set(self._lease, self._worker, nx=True, ex=LEASE_S)):
            return True
        holds = text_of(await answered(self._client.get(self._lease))) == self._worker
        return holds and bool(await answered(self._client.expire(self._lease, LEASE_S)))

    async def begin(self, account: str) -> None:
        """All that is noted is of this account; what was of another one is forgotten."""
        if text_of(await answered(self._client.hget(self._key, "account"))) != account:
            pipe: Any = self._client.pipeline(transaction=True)
            pipe.delete(self._key)
            pipe.hset(self._key, "account", account)
            await answered(pipe.execute())

    async def place(self, partition: int) -> Place | None:
        """The last window of a partition that is done with; None before the first."""
        found = text_of(await answered(self._client.hget(self._key, f"p:{partition}")))
        score, _, name = found.partition("|")
        return Place(partition, _LIST, int(score), name) if found else None

    async def move(self, place: Place, found: Mapping[Outcome, int]) -> None:
        """All windows up to this one are done with; what became of those since the last."""
        pipe: Any = self._client.pipeline(transaction=True)
        pipe.hset(self._key, f"p:{place.partition}", f"{place.score}|{place.name}")
        for outcome, windows in found.items():
            pipe.hincrby(self._key, f"n:{outcome.value}", windows)
        await answered(pipe.execute())

    async def counts(self) -> dict[Outcome, int]:
        """What became of windows since the account is told."""
        found = await answered(self._client.hmget(self._key, [f"n:{outcome.value}" for outcome in Outcome]))
        return {outcome: int(windows or 0) for outcome, windows in zip(Outcome, found, strict=True)}

    async def customer(self, digest: str) -> str:
        """Who pays there for the customer with this digest; '' nobody yet."""
        stored = text_of(await answered(self._client.hget(self._key, place_of(digest))))
        return self._codec.decode_bare("", place_of(digest), stored)

    async def keep_customer(self, digest: str, customer: str) -> str:
        """Keep who pays there; whoever was kept first."""
        place = place_of(digest)
        await answered(self._client.hsetnx(self._key, place, self._codec.encode("", place, customer)))
        return await self.customer(digest)


def place_of(digest: str) -> str:
    """Where it is kept who pays there for the customer with this digest."""
    return f"{CUSTOMER}{digest}"
