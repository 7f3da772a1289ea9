"""What of a dashboard Grafana's own models do not know, or hold in another type.

They are those of its Foundation SDK (Apache-2.0), generated from the schemas of its dashboards and panels:
https://github.com/grafana/grafana-foundation-sdk. Grafana's own repository is AGPL, and nothing of it is used.
"""

import enum
import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def strange(board: dict[str, Any]) -> list[str]:
    """Places of a dashboard that the models lose, change, or do not take."""
    register_default_plugins()
    return list(_read(board, Dashboard, "$"))


def _read(given: dict[str, Any], model: Any, where: str) -> Iterator[str]:
    """What a model makes of its JSON."""
    known = model.from_json(given)
    yield from _lost(given, json.loads(JSONEncoder(sort_keys=True).encode(known)), where)
    yield from _wrong(known, model, where)


def _lost(given: Any, back: Any, where: str) -> Iterator[str]:
    """Where what comes back is not what was given; what has no value there is no field of the models."""
    if isinstance(given, dict) and isinstance(back, dict):
        for name, value in given.items():
            if value is not None:
                yield from _lost(value, back.get(name), f"{where}.{name}")
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for n, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _lost(one, other, f"{where}[{n}]")
    elif given != back:
        yield f"{where}: {given!r} comes back as {back!r}"


def _wrong(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Where a value is not of the type that a model declares."""
    if type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, declared in _fields(type(value)).items():
            yield from _wrong(getattr(value, name, None), declared, f"{where}.{name}")
    elif isinstance(value, dict) and (model := next((one for one in _kinds(kind) if hasattr(one, "from_json")), None)):
        yield from _read(value, model, where)  # the models leave some parts as they are
    elif isinstance(value, list) and list in {get_origin(one) for one in _kinds(kind)}:
        inner = next(get_args(one)[0] for one in _kinds(kind) if get_origin(one) is list)
        for n, item in enumerate(value):
            yield from _wrong(item, inner, f"{where}[{n}]")
    elif not any(_fits(value, one) for one in _kinds(kind)):
        yield f"{where}: {value!r} is no {kind}"


def _fields(model: type) -> dict[str, Any]:
    return get_type_hints(model)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any or kind is object:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value in {one.value for one in kind}
    whole = get_origin(kind) or kind
    if isinstance(value, bool):
        return whole is bool
    return isinstance(value, (int, float) if whole is float else whole)
