"""Bugs planted on the way to Stripe, after it and on the way in: the crash-point and model tests catch each."""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.planted import LEDGER_BUGS, OVERAGE_BUGS, PRUNE_BUGS, PRUNE_CRASH_BUGS, REACTION_BUGS, Bug
from tests.faults.spoilt import SHARE, copy
from tests.faults.test_planted_bugs import caught
from tests.support.servers import StoreServer
from tests.support.soak import drawn

__all__ = ["copy"]

CRASH_TEST: Final = "tests/faults/test_overage_crashes.py"
REACTION_CRASH_TEST: Final = "tests/faults/test_reaction_crashes.py"
PRUNE_CRASH_TEST: Final = "tests/faults/test_prune_crashes.py"
PRUNE_MODEL_TEST: Final = "tests/lua/test_prune_model.py"
CREDIT_MODEL_TEST: Final = "tests/lua/test_credit_model.py"


@pytest.mark.parametrize("bug", drawn(OVERAGE_BUGS, SHARE), ids=lambda bug: bug.name)
def test_crash_test_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted some crash costs or doubles units, or some window stays for ever."""
    caught(copy, bug, store, CRASH_TEST)


@pytest.mark.parametrize("bug", drawn(REACTION_BUGS, SHARE), ids=lambda bug: bug.name)
def test_crash_test_of_reactions_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted some crash costs an event, or makes it take effect twice."""
    caught(copy, bug, store, REACTION_CRASH_TEST)


@pytest.mark.parametrize("bug", drawn(PRUNE_BUGS, SHARE), ids=lambda bug: bug.name)
def test_model_test_of_pruning_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted a window goes that must stay, or stays that must go, or a law breaks."""
    caught(copy, bug, store, PRUNE_MODEL_TEST)


@pytest.mark.parametrize("bug", drawn(PRUNE_CRASH_BUGS, SHARE), ids=lambda bug: bug.name)
def test_crash_test_of_pruning_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted a worker that dies leaves half a window."""
    caught(copy, bug, store, PRUNE_CRASH_TEST)


@pytest.mark.parametrize("bug", drawn(LEDGER_BUGS, SHARE), ids=lambda bug: bug.name)
def test_model_test_of_credits_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted a credit is in two places, or in none, or a reading does not hold."""
    caught(copy, bug, store, CREDIT_MODEL_TEST)
