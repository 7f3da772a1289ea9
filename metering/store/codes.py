"""What the scripts that count answer, in numbers; their headers say the same."""

from typing import Final

from metering.store.connect import MOMENTARY

STALE: Final = 7
CORRUPT: Final = 10
"""Codes that stand for all rows of an organisation."""

NO_ORG, OTHER_CLAIM, RUN_OUT, EARLY, FULL, TEST_CLOCK, MINUTE, FINAL = range(1, 9)
"""Why an answer is stale."""

CLOCKS_APART: Final = -1
OTHER_DAY: Final = -2
"""What stands in place of all answers of a call."""

STATE: Final = (*MOMENTARY, "CROSSSLOT", "NOAUTH", "NOPERM", "WRONGPASS")
"""First words of refusals that are the server's state or its operator's doing, and no organisation's data."""
