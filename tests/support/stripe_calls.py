"""Every call that Stripe's client can make: verb, path, parameters and answer, read from its services."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.stripe_types import FOLDER, module


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `params` and `answer` are names in `place`, the module of the service; '' where it has none."""

    method: str
    path: str
    place: str
    params: str
    answer: str

    @property
    def version(self) -> int:
        """The API it belongs to: 1 speaks forms, 2 speaks JSON."""
        return 2 if self.path.startswith("/v2/") else 1


def find_call(method: str, path: str) -> Call | None:
    """The call that a request is, path parameters filled in; the most literal one where several fit."""
    known = [call for pattern, call in _patterns().get(method.upper(), []) if pattern.fullmatch(path)]
    return min(known, key=lambda call: call.path.count("{"), default=None)


@cache
def calls() -> tuple[Call, ...]:
    """All of them; reading the 220 services takes half a second, once a process."""
    return tuple(call for path in sorted(FOLDER.rglob("*_service.py")) for call in _calls_of(path))


@cache
def _patterns() -> dict[str, list[tuple[re.Pattern[str], Call]]]:
    table: dict[str, list[tuple[re.Pattern[str], Call]]] = {"GET": [], "POST": [], "DELETE": []}
    for call in calls():
        parts = re.split(r"\{\w+\}", call.path)
        table[call.method].append((re.compile("[^/]+".join(map(re.escape, parts))), call))
    return table


def _calls_of(path: Path) -> Iterator[Call]:
    place = ".".join(["stripe", *path.relative_to(FOLDER).with_suffix("").parts])
    for service in module(place).classes.values():
        for method in service.body:
            if isinstance(method, ast.FunctionDef):
                for node in ast.walk(method):
                    if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._request":
                        yield _call(place, method, node)


def _call(place: str, method: ast.FunctionDef, request: ast.Call) -> Call:
    verb, address = request.args[:2]
    if isinstance(address, ast.Call):  # "/v1/customers/{customer}".format(customer=...)
        assert isinstance(address.func, ast.Attribute)
        address = address.func.value
    taken = {one.arg: ast.unparse(one.annotation) for one in method.args.args if one.annotation is not None}
    params = re.search(r"\w+Params", taken.get("params", ""))
    answer = ast.literal_eval(method.returns) if isinstance(method.returns, ast.Constant) else ""
    return Call(ast.literal_eval(verb).upper(), ast.literal_eval(address), place, params[0] if params else "", answer)
