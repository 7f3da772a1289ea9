"""Pruning: windows of overage that nobody asks for any more go, the oldest of each counter first.

One goes when it was delivered or written off long enough ago and its period is final: closed, invoiced, and all of its
overage has its place. So the sums of a period that may still change always have their windows. A dead window never
goes, nor does what stands behind it. What went stays in the counter: how far, and the sums as they were.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from metering.billing.exporter import OUTAGES
from metering.errors import Problem
from metering.store.outbox import Outbox
from metering.store.window import Window
from metering.store.window_lists import Place, WindowLists

PRUNE_S: Final = 600.0
"""Between two turns: with what a turn looks at, 1.4 million windows a day, those of 1,000 counters that never rest."""

READ: Final = 100
"""Windows that are read together, and so the most that one script removes: it takes the store about half a ms."""

LOOKED_AT: Final = 10_000
"""Windows of a turn; the next one goes on behind them, so that those that must stay hold up nobody."""

Finalize = Callable[[str, int, int], Awaitable[None]]

log = structlog.get_logger(__name__)


class Pruner:
    """The job for one data set. Every worker may run it: what one removed is not there for another.

    `lists` read READ windows at a time; `finalize(org_id, start_ms, end_ms)` marks a period as final that may be;
    `now_ms` is the store's time. Raises the 503 problems of the store.
    """

    def __init__(
        self, outbox: Outbox, lists: WindowLists, finalize: Finalize, now_ms: Callable[[], int], *,
        partitions: int, keep_ms: int, looked_at: int = LOOKED_AT,
    ) -> None:  # fmt: skip
        self._outbox, self._lists, self._finalize, self._now_ms = outbox, lists, finalize, now_ms
        self._partitions, self._keep_ms, self._looked_at = partitions, keep_ms, looked_at
        self._partition = 0
        self._after: Place | None = None

    async def turn(self) -> None:
        """Go on where the last turn ended, at most once through all partitions."""
        until_ms, left = self._now_ms() - self._keep_ms, self._looked_at
        for _ in range(self._partitions):
            async for place, windows in self._lists.ended(self._partition, until_ms, self._after):
                await self._prune_all(windows)
                self._after = place
                left -= len(windows)
                if left <= 0:
                    return
            self._partition, self._after = (self._partition + 1) % self._partitions, None

    async def _prune_all(self, windows: list[Window]) -> None:
        """Those of each counter by themselves; one that cannot be read does not hold up the others."""
        chains: dict[tuple[str, str, int], list[Window]] = defaultdict(list)
        for window in windows:
            chains[window.cut.org_id, window.cut.feature, window.cut.period.start_ms].append(window)
        for (org_id, feature, _), chain in chains.items():
            try:
                await self._prune(sorted(chain, key=_from_units))
            except OUTAGES:
                raise
            except Problem as problem:
                log.warning("windows not pruned", org=org_id, feature=feature, code=problem.code)

    async def _prune(self, chain: list[Window]) -> None:
        """A period that lacked its last word only, as a dead window of long ago was let go, gets it here."""
        if await self._outbox.prune(chain, self._keep_ms) is None:
            cut = chain[0].cut
            await self._finalize(cut.org_id, cut.period.start_ms, cut.period.end_ms)
            await self._outbox.prune(chain, self._keep_ms)


def _from_units(window: Window) -> int:
    return window.cut.from_units
