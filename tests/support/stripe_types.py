"""JSON schemas out of the types that Stripe's own client declares, read from its source as it is installed.

The client is generated from Stripe's specification: its services name verb and path of every call, its TypedDicts the
parameters, its resource classes the answers. What its types do not tell (lengths, patterns) is not checked.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]

_FOUND: Final = find_spec("stripe")
assert _FOUND is not None, "the client of Stripe is installed"
FOLDER: Final = Path(str(_FOUND.origin)).parent

_OPTIONS: Final = "RequestOptions"
"""The base of every parameter class of /v1: per-call settings of the client, nothing that goes to Stripe."""

FORM: Final[Mapping[str, Schema]] = {
    "str": {"type": "string"},
    "int": {"type": "string", "pattern": r"^-?[0-9]+$"},
    "float": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
    "Decimal": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,12})?$"},
    "bool": {"enum": ["true", "false"]},
}
"""A form holds texts alone."""

JSON: Final[Mapping[str, Schema]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "Decimal": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
    "bool": {"type": "boolean"},
}


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the client: its classes, and where the names come from that it imports."""

    name: str
    classes: Mapping[str, ast.ClassDef]
    dicts: Mapping[str, ast.Call]
    imports: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a name is looked up: the classes around it, the innermost last, then the file."""

    module: Module
    around: tuple[ast.ClassDef, ...] = ()

    def find(self, name: str) -> "tuple[Scope, ast.ClassDef] | None":
        """The class of that name, with its own surroundings."""
        for depth in range(len(self.around), 0, -1):
            for node in self.around[depth - 1].body:
                if isinstance(node, ast.ClassDef) and node.name == name:
                    return Scope(self.module, self.around[:depth]), node
        if name in self.module.classes:
            return Scope(self.module), self.module.classes[name]
        if name in self.module.imports:
            place, real = self.module.imports[name]
            return Scope(module(place)).find(real)
        return None


@cache
def module(name: str) -> Module:
    """The parsed file of a module of the client; one that is not there is empty."""
    path = FOLDER.joinpath(*name.split(".")[1:]).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
    body += [node for top in body if isinstance(top, ast.If) for node in top.body]  # under TYPE_CHECKING
    return Module(
        name,
        {node.name: node for node in body if isinstance(node, ast.ClassDef)},
        {
            node.targets[0].id: node.value
            for node in body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "TypedDict"
        },
        {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        },
    )


class Types:
    """Schemas of annotations, in one of two dialects: parameters, or the objects in answers."""

    def __init__(self, plain: Mapping[str, Schema]) -> None:
        self._plain = plain

    def of(self, node: ast.expr, scope: Scope) -> Schema:
        """The schema of one annotation."""
        match node:
            case ast.Constant(value=str(text)):
                return self.of(ast.parse(text, mode="eval").body, scope)
            case ast.Constant(value=None):
                return {"type": "null"}
            case ast.Name(id=name):
                return self._plain.get(name) or self.named(name, scope)
            case ast.BinOp():
                return self._union(list(_operands(node)), scope)
            case ast.Subscript(value=ast.Name(id=head), slice=inner):
                return self._generic(head, list(inner.elts) if isinstance(inner, ast.Tuple) else [inner], scope)
        return {}

    def named(self, name: str, scope: Scope) -> Schema:
        """The schema of a class; an unknown one allows everything."""
        raise NotImplementedError

    def _generic(self, head: str, inner: list[ast.expr], scope: Scope) -> Schema:
        first = inner[0]
        makers: Mapping[str, Callable[[], Schema]] = {
            "NotRequired": lambda: self.of(first, scope),
            "Optional": lambda: {"anyOf": [self.of(first, scope), {"type": "null"}]},
            "Union": lambda: self._union(inner, scope),
            "Literal": lambda: {"enum": [self._literal(ast.literal_eval(one)) for one in inner]},
            "List": lambda: {"type": "array", "items": self.of(first, scope)},
            "Dict": lambda: self._map(inner[-1], scope),
            "UntypedStripeObject": lambda: self._map(first, scope),
            "ExpandableField": lambda: {"anyOf": [{"type": "string"}, self.of(first, scope)]},
            "ListObject": lambda: listed(self.of(first, scope), scope.module.imports.get(head, ("", ""))[0]),
        }
        return makers.get(head, dict)()

    def _map(self, value: ast.expr, scope: Scope) -> Schema:
        """A map of the user's own names, such as metadata: its texts may be empty."""
        schema = {"type": "string"} if ast.unparse(value) == "str" else self.of(value, scope)
        return {"type": "object", "additionalProperties": schema}

    def _literal(self, value: Any) -> Any:
        return str(value).lower() if self._plain is FORM and isinstance(value, bool) else value

    def _union(self, members: list[ast.expr], scope: Scope) -> Schema:
        """The client leaves its enumerations open with `| str`. Here they are closed: it knows all of its version."""
        words = [word for one in members for word in _words(one)]
        kept = [one for one in members if not (any(words) and ast.unparse(one) == "str")]
        return {"anyOf": [self.of(one, scope) for one in kept]}


class Params(Types):
    """Parameters: closed, and what must be there is told by NotRequired."""

    def named(self, name: str, scope: Scope) -> Schema:
        """A TypedDict, in either notation."""
        if name in scope.module.dicts:
            return self._object(_entries(scope.module.dicts[name]), scope)
        found = scope.find(name)
        if found is None or name == "UntypedStripeObject":
            return {}
        inside, node = found
        schema = self._object(fields(node), inside)
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id not in {"TypedDict", _OPTIONS}:
                inherited = self.named(base.id, inside)
                schema["properties"] |= inherited.get("properties", {})
                schema["required"] += inherited.get("required", [])
        return schema

    def _object(self, entries: Iterator[tuple[str, ast.expr]], scope: Scope) -> Schema:
        known = dict(entries)
        return {
            "type": "object",
            "properties": {name: self.of(node, scope) for name, node in known.items()},
            "required": [name for name, node in known.items() if not ast.unparse(node).startswith("NotRequired[")],
            "additionalProperties": False,
        }


class Answers(Types):
    """Objects in answers: closed, and what is not Optional must be there.

    A reference to an object that says what it is (`object`) asks for that name alone; whoever checks an answer looks
    at each such object by itself.
    """

    def __init__(self) -> None:
        super().__init__(JSON)

    def named(self, name: str, scope: Scope) -> Schema:
        """A class of answers: its name where it has one, everything in it otherwise."""
        found = scope.find(name)
        if found is None or name in {"UntypedStripeObject", "Any", "object"}:
            return {}
        inside, node = found
        tag = tag_of(node)
        return reference(tag) if tag else self.whole(node, inside)

    def whole(self, node: ast.ClassDef, scope: Scope) -> Schema:
        """All fields of a class and of those it is made from."""
        inside = Scope(scope.module, (*scope.around, node))
        known = dict(fields(node))
        texts = _texts(node)
        schema: Schema = {
            "type": "object",
            "properties": {
                name: {"type": "string"} if name in texts else self.of(kind, inside) for name, kind in known.items()
            },
            "required": [name for name, kind in known.items() if not _optional(kind)],
            "additionalProperties": False,
        }
        for base in node.bases:
            found = scope.find(base.id) if isinstance(base, ast.Name) else None
            if found is not None:
                inherited = self.whole(found[1], found[0])
                schema["properties"] = inherited["properties"] | schema["properties"]
                schema["required"] += [name for name in inherited["required"] if name not in known]
        return schema


def reference(tag: str) -> Schema:
    """An object that names itself."""
    return {"type": "object", "required": ["object"], "properties": {"object": {"const": tag}}}


def listed(item: Schema, place: str) -> Schema:
    """A page of a list: /v2 has its own shape."""
    rows = {"type": "array", "items": item}
    if place.startswith("stripe.v2"):
        names = ("next_page_url", "previous_page_url")
        pages: Schema = {name: {"type": ["string", "null"]} for name in names}
        return _closed({"data": rows, **pages}, ["data", *names])
    head: Schema = {"object": {"const": "list"}, "url": {"type": "string"}, "has_more": {"type": "boolean"}}
    return _closed({**head, "data": rows, "total_count": {"type": "integer"}}, [*head, "data"])


def _closed(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """The annotated fields of a class, without those of the client itself."""
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            name, kind = one.target.id, one.annotation
            if not (name.startswith("_") or ast.unparse(kind).startswith("ClassVar")):
                yield name.rstrip("_"), kind


def tag_of(node: ast.ClassDef) -> str:
    """What an object of this class says it is; '' where it does not say."""
    kind = ast.unparse(dict(fields(node)).get("object", ast.Constant("")))
    return str(ast.literal_eval(kind.removeprefix("Literal[").removesuffix("]"))) if kind.startswith("Literal[") else ""


def _optional(node: ast.expr) -> bool:
    return ast.unparse(node).strip("'\"").startswith(("Optional[", "NotRequired["))


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _operands(node.left)
        yield from _operands(node.right)
    else:
        yield node


def _words(node: ast.expr) -> Iterator[Any]:
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        yield from ast.literal_eval(node.slice) if isinstance(node.slice, ast.Tuple) else [ast.literal_eval(node.slice)]


def _entries(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    table = call.args[1]
    assert isinstance(table, ast.Dict)
    for name, kind in zip(table.keys, table.values, strict=True):
        assert isinstance(name, ast.Constant)
        yield str(name.value), kind


def _texts(node: ast.ClassDef) -> set[str]:
    """Fields that are numbers in the client and texts in Stripe's JSON."""
    for one in node.body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "_field_encodings":
            table = ast.literal_eval(one.value)
            return {name for name, how in table.items() if how == "int64_string"}
    return set()
