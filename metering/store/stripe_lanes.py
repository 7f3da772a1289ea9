"""Lanes and their journal: of one customer and meter one window is on its way, and what Stripe took is written down.

Stripe takes one call at a time of a customer and meter
(https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api). One window at a time also keeps a
doubt decidable: the sum that Stripe has is the journal's, with that window or without it. Two organisations may share
a customer, so a lane belongs to neither and lies in a partition of its own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from metering.store.connect import answered, text_of, texts
from metering.store.customers import Customers
from metering.store.frames import DAY_MS, HOUR_MS, day_text
from metering.store.keys import Keys
from metering.store.scripts import script
from metering.store.window import Window

if TYPE_CHECKING:
    from redis.asyncio import Redis

JOURNAL_KEEP_S: Final = 100 * 86_400
"""Usage may be told 35 days late and its invoice disputed for months after; a hundred days cost about 80 B a window."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The window that has a lane."""

    window: str
    org_id: str


class Lanes:
    """The lanes of one data set; `customers` names them. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, customers: Customers, *, fake: bool = False) -> None:
        self._client: Any = client
        self._keys, self._customers = keys, customers
        self._lane: Any = client.register_script(script("pass_lane", fake=fake).text)
        self._journal: Any = client.register_script(script("journal", fake=fake).text)

    def name(self, customer: str, meter: str) -> str:
        """What stands for a customer and a meter (its event name) in keys."""
        return self._customers.digest(f"{customer}|{meter}")

    async def take(self, lane: str, window: Window, before: str = "") -> Holder | None:
        """Let a window have a lane that the window `before` had; who has it instead, or None: it has it."""
        args = [before, window.id, window.cut.org_id]
        reply = await answered(self._lane(keys=[self._keys.lane(lane)], args=args))
        return None if reply[0] else Holder(text_of(reply[1]), text_of(reply[2]))

    async def leave(self, lane: str, window: str) -> None:
        """Free a lane of a window whose way is over; that of another stays."""
        await answered(self._lane(keys=[self._keys.lane(lane)], args=[window, "", ""]))

    # ── the journal ──────────────────────────────────────────────────────────────────────────────────────

    async def note(self, lane: str, window: Window) -> None:
        """Write down that Stripe took a window."""
        hour = window.stamp_ms % DAY_MS // HOUR_MS
        args = [window.id, f"{hour:02d}|{window.units}", JOURNAL_KEEP_S]
        await answered(self._journal(keys=[self._day(lane, window.stamp_ms)], args=args))

    async def strike(self, lane: str, window: Window) -> None:
        """Take a window back that Stripe took and could not use."""
        await answered(self._client.hdel(self._day(lane, window.stamp_ms), window.id))

    async def has(self, lane: str, window: Window) -> bool:
        """Whether it is written down that Stripe took a window."""
        return bool(await answered(self._client.hexists(self._day(lane, window.stamp_ms), window.id)))

    async def hour(self, lane: str, at_ms: int) -> dict[str, int]:
        """The windows that Stripe took of the hour that holds an instant, and their units."""
        wanted = f"{at_ms % DAY_MS // HOUR_MS:02d}"
        rows = texts(await answered(self._client.hgetall(self._day(lane, at_ms))))
        pairs = {name: text.split("|") for name, text in rows.items()}
        return {name: int(units) for name, (hour, units) in pairs.items() if hour == wanted}

    async def span(self, lane: str, start_ms: int, end_ms: int) -> int:
        """Units that Stripe took of the hours in [start, end), both at whole hours."""
        total = 0
        for day in range(start_ms // DAY_MS, -(-end_ms // DAY_MS)):
            rows = texts(await answered(self._client.hgetall(self._day(lane, day * DAY_MS))))
            for hour, units in (text.split("|") for text in rows.values()):
                total += int(units) if start_ms <= day * DAY_MS + int(hour) * HOUR_MS < end_ms else 0
        return total

    def _day(self, lane: str, at_ms: int) -> str:
        return self._keys.journal(lane, day_text(at_ms // DAY_MS))
