"""Repair: dead windows that may have arrived, held against Stripe's own sum of their hour.

What the sum proves is done by letting the window go again: the exporter repeats it under its identifier while Stripe
knows that, and after 23 hours marks it delivered or sends it by the same law as here. What it does not prove is left.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from metering.billing.desk import Desk
from metering.billing.errors import GatewayError
from metering.billing.sending import Sender
from metering.store.frames import HOUR_MS
from metering.store.stripe_lanes import Lanes
from metering.store.window import Sink, State, Window
from metering.store.window_lists import Place

LAG_MS: Final = 60 * 60_000
"""Stripe's sums lag behind what it took: a window that was tried later is left alone."""

_PAGE: Final = 200


class Proof(StrEnum):
    """What Stripe's sum says of a window."""

    LACKS = "lacks"
    HAS = "has"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Step:
    """A dead window and what is proved of it. Only what is proved is repaired."""

    window: Window
    proof: Proof


class Repairer:
    """`meters`: event name of a feature's meter. Raises the 503 problems of the store."""

    def __init__(self, desk: Desk, lanes: Lanes, sender: Sender, meters: Mapping[str, str | None]) -> None:
        self._desk, self._lanes, self._sender, self._meters = desk, lanes, sender, meters

    async def plan(self) -> list[Step]:
        """What a repair would do."""
        together: dict[tuple[str, int], list[Window]] = defaultdict(list)
        place: Place | None = None
        while True:
            page, place = await self._desk.page({State.DEAD}, None, _PAGE, place)
            for window in (listed.window for listed in page):
                if not window.fresh and window.sink is Sink.METER and self._meters.get(window.cut.feature):
                    together[self._lane(window), window.stamp_ms // HOUR_MS].append(window)
            if place is None:
                break
        steps: list[Step] = []
        for (lane, _), windows in together.items():
            proof = await self._proof(lane, windows)
            steps += [Step(window, proof) for window in windows]
        return steps

    async def apply(self, *, by: str) -> list[Step]:
        """Do what is proved, and tell all that was looked at."""
        steps = await self.plan()
        for step in steps:
            if step.proof is not Proof.NEITHER:
                await self._desk.replay(step.window.id, by=by)
        return steps

    def _lane(self, window: Window) -> str:
        return self._lanes.name(window.customer, self._meters.get(window.cut.feature) or "")

    async def _proof(self, lane: str, windows: list[Window]) -> Proof:
        """All dead windows of a lane's hour are there, or none is; anything between proves nothing."""
        first = windows[0]
        if self._desk.now_ms() - max(window.tried_ms or 0 for window in windows) < LAG_MS:
            return Proof.NEITHER
        known = sum((await self._lanes.hour(lane, first.stamp_ms)).values())
        try:
            found = await self._sender.hour_usage(first, self._meters.get(first.cut.feature) or "")
        except GatewayError:
            return Proof.NEITHER
        if found == known:
            return Proof.LACKS
        return Proof.HAS if found == known + sum(window.units for window in windows) else Proof.NEITHER
