"""What happens by itself as the clock goes on: each thing at its own moment, the earliest first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Db


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of thing that falls due. `run` does what is due at `ctx.now_s`, after which `due` is later or None."""

    due: Callable[[Db], int | None]
    """When the next of its kind falls due, in seconds since the epoch; None for never."""

    run: Callable[[Context], None]


JOBS: Final[list[Job]] = []
"""All kinds, in the order in which they happen at the same second."""


def next_due(db: Db) -> int | None:
    """When the next thing falls due."""
    return min((moment for job in JOBS if (moment := job.due(db)) is not None), default=None)


def run_due(db: Db, context: Callable[[int], Context], now_s: int) -> int:
    """Do all that is due up to `now_s`, each in a transaction at its own moment; how many there were."""
    done = 0
    while True:
        waiting = [(moment, number) for number, job in enumerate(JOBS) if (moment := job.due(db)) is not None]
        if not waiting or min(waiting)[0] > now_s:
            return done
        moment, number = min(waiting)
        with db.transaction():
            JOBS[number].run(context(moment))
        done += 1
