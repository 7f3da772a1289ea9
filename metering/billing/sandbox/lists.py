"""Lists as Stripe pages them: https://docs.stripe.com/api/pagination."""

from collections.abc import Sequence
from typing import Any, Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import missing

LIMIT: Final = 10


def page(ctx: Context, rows: Sequence[Obj], params: dict[str, Any]) -> Obj:
    """The page of `rows` (newest first) that `limit`, `starting_after` and `ending_before` ask for.

    Raises ApiError 400 for a cursor that is not among the rows.
    """
    limit = params.get("limit") or LIMIT
    after, before = params.get("starting_after"), params.get("ending_before")
    if before:
        end = _place(rows, before, "ending_before")
        start = max(0, end - limit)
        return as_list(ctx.path, rows[start:end], more=start > 0)
    start = _place(rows, after, "starting_after") + 1 if after else 0
    return as_list(ctx.path, rows[start : start + limit], more=len(rows) > start + limit)


def listing(ctx: Context, kind: str, params: dict[str, Any], *fields: str) -> Obj:
    """A page of a kind, the newest first: what was made within `created` and whose `fields` are as asked for."""
    rows = [
        row
        for row in ctx.db.all(kind, newest_first=True)
        if all(params.get(name) in {None, row[name]} for name in fields)
    ]
    return page(ctx, within(rows, params.get("created")), params)


def as_list(url: str, rows: Sequence[Obj], *, more: bool = False) -> Obj:
    """A list object."""
    return {"object": "list", "url": url, "has_more": more, "data": list(rows)}


def within(rows: Sequence[Obj], created: Any) -> list[Obj]:
    """Those whose `created` is what a `created` parameter asks for: a moment, or bounds of it."""
    if created is None:
        return list(rows)
    bounds = created if isinstance(created, dict) else {"gte": created, "lte": created}
    return [row for row in rows if all(_holds(row["created"], name, bound) for name, bound in bounds.items())]


def _holds(value: int, name: str, bound: int | None) -> bool:
    if bound is None:
        return True
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[name]


def _place(rows: Sequence[Obj], object_id: str, param: str) -> int:
    for number, row in enumerate(rows):
        if row["id"] == object_id:
            return number
    raise missing("object", object_id, param)
