"""The claim: one string in an organisation's record that proves a caller's copy of it is current.

It holds until when it is valid, the dedupe tiers of this and the previous UTC month, and a revision that every
change of plan, limits, period or tiers raises. The script compares it whole; equal means that the caller's period,
limits and key names are right, with no calendar and no second look in Lua.
"""

from dataclasses import dataclass
from typing import Final

TIERS: Final = "048cgk"
"""Shard exponents in base 36: a tier `8` has 2**8 shards. A month's tiers only ever grow by one step."""

SHARD_IDS: Final = 200
"""Ids one shard holds before its tier grows: two integers an id stay under the 512 of a compact set."""


def shards_of(tier: str) -> int:
    """How many shards a tier has."""
    return 1 << int(tier, 36)


def tier_for(ids: int) -> str:
    """The smallest tier whose shards hold `ids` ids of one month."""
    return next((tier for tier in TIERS if ids <= SHARD_IDS * shards_of(tier)), TIERS[-1])


@dataclass(frozen=True, slots=True)
class Claim:
    """A parsed claim. `tiers` and `tiers_before` are strings of tier characters, `month` is `yyyymm`."""

    valid_until_ms: int
    month: str
    tiers: str
    tiers_before: str
    revision: int
    catalogue: int

    def text(self) -> str:
        """The string as the record holds it."""
        counts = f"{len(self.tiers)}{len(self.tiers_before)}"
        months = f"{self.month}:{self.tiers}:{self.tiers_before}"
        return f"{self.valid_until_ms}:{counts}:{months}:{self.revision}.{self.catalogue}"

    @classmethod
    def parse(cls, text: str) -> "Claim":
        """Read a stored claim. Raises ValueError when it is not one."""
        valid_until, _, month, tiers, tiers_before, version = text.split(":")
        revision, catalogue = version.split(".")
        return cls(int(valid_until), month, tiers, tiers_before, int(revision), int(catalogue))

    def grown(self) -> str:
        """The tiers with one more, where the last is full."""
        step = TIERS.index(self.tiers[-1]) + 1
        return self.tiers + TIERS[step : step + 1]
