"""Identifiers that sort by time: ULIDs (48 bits of ms, 80 random bits, 26 letters of Crockford's base 32)."""

import os
from collections.abc import Callable
from typing import Final

from metering.clock import Clock

_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _LETTERS for low in _LETTERS)
_PAIR_BITS: Final = 10
_PAIR_MASK: Final = (1 << _PAIR_BITS) - 1
_RANDOM_BYTES: Final = 9  # 70 of its 72 bits; the last pair of letters counts
_TIME_PAIRS: Final = 5
_RANDOM_PAIRS: Final = 7


class Ulids:
    """Mints ULIDs for one process, each greater than the one before while the clock does not go back.

    Within one ms the last ten bits count up from a random start and fresh random bits are drawn when they run
    out, so that the usual id costs one look at the clock and one concatenation.
    """

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._now_ms = clock.now_ms
        self._entropy = entropy
        self._prefix_ms = -1
        self._prefix = ""
        self._random = 0
        self._count = 0

    def mint(self) -> str:
        """The next id."""
        now_ms = self._now_ms()
        if now_ms != self._prefix_ms or self._count == _PAIR_MASK:
            self._renew(now_ms)
        self._count += 1
        return self._prefix + _PAIRS[self._count]

    def _renew(self, now_ms: int) -> None:
        """A new prefix: within the same ms one greater than before, otherwise random."""
        same_ms = now_ms == self._prefix_ms
        drawn = int.from_bytes(self._entropy(_RANDOM_BYTES), "big") >> 2
        # One bit is left free at the top, so that counting on within a ms never overflows.
        self._random = self._random + 1 if same_ms else drawn >> 1
        self._prefix = _pairs(now_ms, _TIME_PAIRS) + _pairs(self._random, _RANDOM_PAIRS)
        self._prefix_ms = now_ms
        self._count = 0


def _pairs(number: int, count: int) -> str:
    """The lowest `count` ten-bit groups of `number`, highest first, two letters each."""
    shifts = range((count - 1) * _PAIR_BITS, -1, -_PAIR_BITS)
    return "".join(_PAIRS[(number >> shift) & _PAIR_MASK] for shift in shifts)
