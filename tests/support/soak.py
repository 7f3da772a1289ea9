"""What a run of the suite draws, by its seed, of what `make soak` does wholly.

A rule that is held against every order, crash or bug there is takes hours in the end. A run does a share of them, each
time another one, and the seed it prints brings the same share again.
"""

import os
import random
from collections.abc import Iterable
from typing import Final, TypeVar

SEED: Final = int(os.environ["MODEL_SEED"])
SOAK: Final = bool(os.environ.get("SOAK"))

_Item = TypeVar("_Item")


def drawn(items: Iterable[_Item], share: int) -> list[_Item]:
    """One of `share` items, in their order; all of them in a soak, and never none of some."""
    row = list(items)
    if SOAK:
        return row
    taken = random.Random(SEED).sample(range(len(row)), -(-len(row) // share))
    return [row[place] for place in sorted(taken)]


def often(soak: int, share: int) -> int:
    """How many examples or steps: `soak` of them in a soak, else one of `share`."""
    return soak if SOAK else max(1, soak // share)
