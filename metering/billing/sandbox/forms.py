"""Stripe's forms: `a[b][0]=c` is {"a": {"b": {"0": "c"}}}. Lists are told by the declared fields."""

from typing import Any, Final
from urllib.parse import parse_qsl

from metering.billing.sandbox.errors import ApiError

DEPTH_MAX: Final = 20
"""Steps of a name: twice what any parameter of Stripe's has."""


def decoded(form: str) -> dict[str, Any]:
    """The parameters as nested dicts of texts. Raises ApiError 400 for names that contradict each other, or have
    more than DEPTH_MAX steps.
    """
    root: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        head, _, rest = name.partition("[")
        keys = [head, *rest.removesuffix("]").split("][")] if rest else [head]
        if len(keys) > DEPTH_MAX:
            raise ApiError(f"Invalid parameters: a name has more than {DEPTH_MAX} steps")
        node = root
        for key in keys[:-1]:
            node = _into(node, key, name)
        last = keys[-1] or str(len(node))
        if isinstance(node.get(last), dict):
            raise ApiError(f"Invalid parameters: {name} is an object already", param=name)
        node[last] = value
    return root


def _into(node: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    found = node.setdefault(key or str(len(node)), {})
    if not isinstance(found, dict):
        raise ApiError(f"Invalid parameters: {name} is a value already", param=name)
    return found
