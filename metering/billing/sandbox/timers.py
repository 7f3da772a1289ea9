"""What is to happen to billing at a moment yet to come: one timer a thing and object, kept with the objects."""

from collections.abc import Callable
from typing import Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.jobs import JOBS, Job

_KIND: Final = "sandbox.timer"
_ALL: Final = "all"

Ring = Callable[[Context, str], None]
"""What a timer does, given the id of its object."""

_RINGS: Final[dict[str, Ring]] = {}


def on(what: str) -> Callable[[Ring], Ring]:
    """Name what happens when a timer of this kind rings."""

    def named(ring: Ring) -> Ring:
        _RINGS[what] = ring
        return ring

    return named


def wind(db: Db, what: str, object_id: str, at_s: int | None) -> None:
    """Let it ring at `at_s`, in place of an earlier wish; None takes it back."""
    name = f"{what}:{object_id}"
    if at_s is None:
        db.delete(_KIND, name)
    else:
        db.put(_KIND, {"id": name, "at": at_s}, parent=_ALL, at=at_s)


def rings_at(db: Db, what: str, object_id: str) -> int | None:
    """When it rings."""
    found = db.get(_KIND, f"{what}:{object_id}")
    return None if found is None else int(found["at"])


def _first(db: Db) -> Obj | None:
    return min(db.of(_KIND, _ALL), key=_order, default=None)


def _order(timer: Obj) -> tuple[int, int]:
    """At one second in the order in which the kinds were named: the old is closed before the new begins."""
    return timer["at"], list(_RINGS).index(timer["id"].partition(":")[0])


def _due(db: Db) -> int | None:
    first = _first(db)
    return None if first is None else int(first["at"])


def _run(ctx: Context) -> None:
    first = _first(ctx.db)
    if first is not None:
        what, _, object_id = first["id"].partition(":")
        ctx.db.delete(_KIND, first["id"])
        _RINGS[what](ctx, object_id)


JOBS.append(Job(_due, _run))
