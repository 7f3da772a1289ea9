"""Bugs planted on the way to Stripe: the crash-point test, unchanged, catches each."""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.planted import OVERAGE_BUGS, Bug
from tests.faults.test_planted_bugs import caught, copy
from tests.support.servers import StoreServer

__all__ = ["copy"]

CRASH_TEST: Final = "tests/faults/test_overage_crashes.py"


@pytest.mark.parametrize("bug", OVERAGE_BUGS, ids=lambda bug: bug.name)
def test_crash_test_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted some crash costs or doubles units, or some window stays for ever."""
    caught(copy, bug, store, CRASH_TEST)
