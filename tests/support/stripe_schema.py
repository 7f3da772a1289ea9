"""Holds requests to Stripe, and answers of the sandbox, to what Stripe's own client says of them.

What begins with `check_` raises AssertionError with every fault it sees. Nothing is kept in step by hand:
the schemas are made from the client that is installed.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jsonschema_rs
from stripe._encode import _api_encode
from stripe._object_classes import OBJECT_CLASSES, V2_OBJECT_CLASSES

from tests.support.stripe_calls import Call, find_call
from tests.support.stripe_types import FORM, JSON, Answers, Params, Schema, Scope, module

__all__ = [
    "check_all",
    "check_object",
    "check_params",
    "check_request",
    "check_response",
    "decoded",
    "find_call",
    "object_schema",
]

_MAPS: Final = {"metadata", "payload"}
"""Maps of the user's own names: a number among them is no index, and what looks like an object is none."""

_FREE: Final = {*_MAPS, "previous_attributes"}

_THIN: Final = "v2.core.event"

_ERROR_TYPES: Final = ["api_error", "card_error", "idempotency_error", "invalid_request_error"]
"""https://docs.stripe.com/api/errors"""


def check_request(method: str, path: str, body: bytes | str = b"", content_type: str = "") -> None:
    """Whether Stripe knows this call and all of its parameters. `path` may carry a query."""
    address, _, query = path.partition("?")
    call = find_call(method, address)
    assert call is not None, f"Stripe has no {method} {address}"
    text = body.decode() if isinstance(body, bytes) else body
    wanted = "application/json" if call.version > 1 else "application/x-www-form-urlencoded"
    assert not text or content_type.partition(";")[0] == wanted, f"{method} {address} takes {wanted}"
    as_json = call.version > 1 and bool(text)
    params = json.loads(text) if as_json else decoded(text or query)
    assert isinstance(params, dict), f"{method} {address}: the parameters are no object"
    _hold(_request_validator(call, as_json), params, f"{method} {address}")


def check_params(method: str, path: str, params: Mapping[str, Any]) -> None:
    """The same of a call that a test takes before the client has written it as a form or as JSON."""
    if path.startswith("/v2/"):
        check_request(method, path, json.dumps(params), "application/json")
    else:
        check_request(method, path, urlencode(list(_api_encode(params))), "application/x-www-form-urlencoded")


def check_response(method: str, path: str, status: int, body: bytes | str | Mapping[str, Any]) -> None:
    """Whether Stripe could have answered so: an error as Stripe writes one, or the object that the client expects."""
    address = path.partition("?")[0]
    answer = json.loads(body) if isinstance(body, bytes | str) else body
    where = f"{method} {address} -> {status}"
    if status >= 300:
        _hold(_error_validator(2 if address.startswith("/v2/") else 1), answer, where)
        return
    call = find_call(method, address)
    assert call is not None, f"Stripe has no {method} {address}"
    _hold(_answer_validator(call), answer, where)
    if call.answer == "DeletedObject":
        return  # /v2 leaves the id and what it was of
    check_all(answer, version=call.version, where=where)


def check_all(answer: Any, *, version: int = 1, where: str = "") -> None:
    """Whether every object in an answer is as Stripe has it."""
    for place, found in _objects(answer):
        check_object(found, version=version, where=f"{where} {place}")


def check_object(found: Mapping[str, Any], *, version: int = 1, where: str = "") -> None:
    """Whether one object, told by its `object`, is as Stripe has it; objects inside it are not looked at."""
    kind = str(found.get("type", "")) if found["object"] == _THIN else ""
    known = V2_OBJECT_CLASSES if version > 1 else OBJECT_CLASSES
    assert found["object"] in known, f"{where}: Stripe has no object {found['object']!r}"
    if found.get("deleted") is True:
        assert set(found) == {"id", "object", "deleted"}, f"{where}: more is left of it than of a deleted object"
        return
    _hold(_object_validator(found["object"], version, kind), found, f"{where} ({found['object']})".strip())


def decoded(form: str) -> dict[str, Any]:
    """The parameters in a form, `a[b][0]=c` as {"a": {"b": ["c"]}}. Raises AssertionError for a broken one."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True, strict_parsing=bool(form)):
        head, *rest = name.replace("]", "").split("[")
        node, keys = root, [head, *rest]
        for number, key in enumerate(keys[:-1]):
            node = node.setdefault(key or str(len(node)), {})
            assert isinstance(node, dict), f"{name}: {'.'.join(keys[: number + 1])} is a value already"
        last = keys[-1] or str(len(node))
        assert last not in node, f"{name} stands there twice"
        node[last] = value
    listed = _listed(root)
    assert isinstance(listed, dict)
    return listed


def _listed(node: Any, name: str = "-") -> Any:
    """The same with lists for what has nothing but indices."""
    if not isinstance(node, dict):
        return node
    if node and name not in _MAPS and list(node) == [str(number) for number in range(len(node))]:
        return [_listed(value) for value in node.values()]
    return {key: _listed(value, key) for key, value in node.items()}


def _objects(node: Any, place: str = "$") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object in an answer that says what it is, lists left out: they were looked at from outside."""
    if isinstance(node, dict):
        if isinstance(node.get("object"), str) and node["object"] not in {"list", "search_result"}:
            yield place, node
        for key, value in node.items():
            if key not in _FREE:
                yield from _objects(value, f"{place}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _objects(value, f"{place}[{number}]")


def _hold(validator: Any, instance: Any, where: str) -> None:
    faults = [
        f"  {'.'.join(map(str, fault.instance_path)) or '$'}: {fault.message}" for fault in _errors(validator, instance)
    ]
    assert not faults, "\n".join([where, *faults])


def _errors(validator: Any, instance: Any) -> list[Any]:
    return [] if validator.is_valid(instance) else list(validator.iter_errors(instance))


@cache
def _request_validator(call: Call, as_json: bool) -> Any:
    nothing: Schema = {"type": "object", "additionalProperties": False}
    params = Params(JSON if as_json else FORM)
    return jsonschema_rs.validator_for(params.named(call.params, Scope(module(call.place))) if call.params else nothing)


@cache
def _answer_validator(call: Call) -> Any:
    return jsonschema_rs.validator_for(Answers().of(ast.Constant(call.answer), Scope(module(call.place))))


@cache
def object_schema(tag: str, version: int = 1, kind: str = "") -> Schema:
    """The schema of what says that it is `tag`; `kind` is the type of a thin event, whose data depends on it."""
    place, name = (V2_OBJECT_CLASSES if version > 1 else OBJECT_CLASSES)[tag]
    if tag == _THIN:
        place, name = _event_class(kind) or (place, name)
    scope = Scope(module(place))
    return Answers().whole(scope.module.classes[name], scope)


@cache
def _object_validator(tag: str, version: int, kind: str) -> Any:
    return jsonschema_rs.validator_for(object_schema(tag, version, kind))


def _event_class(kind: str) -> tuple[str, str] | None:
    """The class of a thin event, which declares its data; None for a kind that the client does not know."""
    found = import_module("stripe.events._event_classes").get_v2_event_class(kind)
    return None if found.__name__ == "Event" else (found.__module__, found.__name__)


@cache
def _error_validator(version: int) -> Any:
    scope = Scope(module("stripe._error_object"))
    error = Answers().whole(scope.module.classes["ErrorObject"], scope)
    if version == 1:
        error["properties"]["type"] = {"enum": _ERROR_TYPES}
    error["required"] = ["type", "message"] if version == 1 else ["message"]
    schema = {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False}
    return jsonschema_rs.validator_for(schema)
