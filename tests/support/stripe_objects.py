"""Objects of Stripe as tests need them: what a test says of one, and the least that Stripe would say besides."""

from copy import deepcopy
from typing import Any, Final

from tests.support.stripe_schema import check_all, object_schema
from tests.support.stripe_types import Schema

_NOTHING: Final[dict[Any, Any]] = {
    "string": "",
    "pattern": "0",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}
"""By the type of a value; texts that have to be of a form are numbers."""


def whole(tag: str, /, **said: Any) -> dict[str, Any]:
    """An object that says it is `tag`, with every field that Stripe's always have. Raises AssertionError for others."""
    version = 2 if tag.startswith("v2.") else 1
    made: dict[str, Any] = filled(object_schema(tag, version, said.get("type", "")), {"object": tag, **said})
    check_all(made, version=version)
    return made


def rows(*found: dict[str, Any], url: str = "/v1", more: bool = False) -> dict[str, Any]:
    """One page of a list."""
    return {"object": "list", "url": url, "has_more": more, "data": list(found)}


def filled(schema: Schema, said: Any) -> Any:
    """`said`, and in it whatever the schema needs and it lacks; nothing of what may be left out."""
    if "anyOf" in schema:
        fitting = [one for one in schema["anyOf"] if one.get("type") == "object"]
        return filled(fitting[0], said) if fitting and isinstance(said, dict) else said
    if not isinstance(said, dict) or schema.get("type") != "object":
        return said
    known = schema.get("properties", {})
    lacks = {name: _least(known[name]) for name in schema.get("required", []) if name not in said}
    return lacks | {name: filled(known.get(name, {}), value) for name, value in said.items()}


def _least(schema: Schema) -> Any:
    """The smallest value that a schema takes."""
    if "anyOf" in schema:
        return None if {"type": "null"} in schema["anyOf"] else _least(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    tag = schema.get("properties", {}).get("object", {}).get("const")
    if tag not in {None, "list"}:
        return whole(tag)
    kind = "pattern" if "pattern" in schema else schema.get("type")
    return schema.get("const", filled(schema, deepcopy(_NOTHING.get(kind))))
