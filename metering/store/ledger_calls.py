"""How the scripts of the credit ledger are called: their keys, the clock that goes with them, and refusals to read."""

from collections.abc import Awaitable
from typing import Any, Final

from metering.erasure_errors import OrgErased
from metering.errors import ClockUnsafe, OrgCorrupt
from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.timing import StoreTime

_APART, _CORRUPT, _ERASED = -1, -2, -3

_SHARED: Final = ("lapsing", "topups")


class LedgerCalls:
    """What calls on one data set have in common."""

    def __init__(self, keys: Keys, time: StoreTime) -> None:
        self._keys, self._time = keys, time

    async def ran(self, call: Awaitable[Any]) -> list[Any]:
        """A script's reply. Raises ClockUnsafe, OrgCorrupt, OrgErased."""
        reply: list[Any] = await answered(call)
        if reply[0] == _APART:
            raise ClockUnsafe(headers={"Retry-After": "5"})
        if reply[0] == _CORRUPT:
            raise OrgCorrupt
        if reply[0] == _ERASED:
            raise OrgErased
        return reply

    def names(self, org_id: str, *more: str) -> list[str]:
        """The keys that every one of them takes, then `more`, then the clock's."""
        keys, partition = self._keys, self._keys.partition(org_id)
        head = [keys.record(org_id), keys.trail(org_id), keys.shared("totals", partition)]
        own = [keys.pool(org_id), keys.burned(org_id), keys.ledger(org_id), keys.grants(org_id)]
        return [*head, *own, *(keys.shared(kind, partition) for kind in _SHARED), *more, *self.clock_key(org_id)]

    def clock_args(self) -> list[Any]:
        """The caller's clock, and the offset that it knows."""
        return [self._time.caller_ms(), self._time.offset_text()]

    def clock_key(self, org_id: str) -> list[str]:
        """The key of the test clock, where there is one."""
        if self._time.test_offset_ms is None:
            return []
        return [self._keys.shared("clock", self._keys.partition(org_id))]
