"""Which marks of a limit one step crosses.

The marks are the ones warnings are sent for: 75, 80, 90 and 100 % of the limit.
"""

from typing import Final

MARKS: Final = (75, 80, 90, 100)


def crossed(used_before: int, used_after: int, limit: int | None) -> tuple[int, ...]:
    """The marks (percent) that a step from `used_before` to `used_after` units crosses, lowest first.

    A mark is crossed when the counter reaches it: at 8 of 10 the 80 % mark is crossed, at 7 it is not.
    An unlimited feature has no marks; neither has a limit of 0, of which no percentage exists.
    """
    if limit is None:
        return ()
    return tuple(mark for mark in MARKS if used_before * 100 < mark * limit <= used_after * 100)
