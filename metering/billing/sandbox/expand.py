"""`expand[]`: ids become the objects that they name, and what is left out unless asked for is shown."""

from collections.abc import Iterable
from typing import Any, Final

from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.errors import ApiError

LEFT_OUT: Final = {
    "checkout.session": {"line_items"},
    "invoice": {"payments"},
    "price": {"tiers", "currency_options"},
}
"""What an object shows only where it is asked for: https://docs.stripe.com/api/expanding_objects."""


def rendered(db: Db, answer: Obj, asked: Iterable[str]) -> Obj:
    """The answer as the caller sees it. Raises ApiError 400 for a place that cannot be expanded."""
    wanted = set(asked)
    for place in wanted:
        _expand(db, answer, place.split("."), place)
    shown: Obj = _shown(answer, "", wanted)
    return shown


def _expand(db: Db, node: Any, keys: list[str], place: str) -> None:
    if isinstance(node, list):
        for row in node:
            _expand(db, row, keys, place)
        return
    head, rest = keys[0], keys[1:]
    if isinstance(node, dict) and head not in node and head in LEFT_OUT.get(str(node.get("object")), set()):
        return  # this one has none: a price by the unit has no tiers
    if not isinstance(node, dict) or head not in node:
        raise ApiError(f"This property cannot be expanded ({place}).", param="expand")
    if isinstance(node[head], str):
        found = db.named(node[head])
        if found is None:
            raise ApiError(f"This property cannot be expanded ({place}).", param="expand")
        node[head] = found
    if rest and node[head] is not None:
        _expand(db, node[head], rest, place)


def _shown(node: Any, place: str, wanted: set[str]) -> Any:
    if isinstance(node, list):
        return [_shown(row, place, wanted) for row in node]
    if not isinstance(node, dict):
        return node
    hidden = LEFT_OUT.get(str(node.get("object")), set())
    inside = {key: f"{place}.{key}".lstrip(".") for key in node}
    return {
        key: _shown(value, inside[key], wanted)
        for key, value in node.items()
        if key not in hidden or inside[key] in wanted
    }
