"""No float near money or usage: no literal, call or division that makes one, in any room that handles amounts."""

import ast
from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from tests.house.repo import files, short

ROOMS: Final = ("plans", "metering/billing", "metering/api", "metering/store")
MAKERS: Final = {"float", "round", "fsum", "fmean", "mean"}
CURE: Final = (
    "Amounts and units are whole: add and multiply them, divide with // or divmod, round in plans/money.py alone."
    " A time in seconds belongs in a constant that ends in _S; anything else is a row here with its reason."
)

ALLOWED: Final[dict[str, dict[str, str]]] = {
    "metering/api/access.py": {
        "round(seconds * MS_PER_S, 3)": "how long a request took, for the log",
        "slow_ms / MS_PER_S": "seconds",
    },
    "metering/api/bodies.py": {"float(text)": "whether the text of a JSON number is a whole one"},
    "metering/api/pages.py": {"Path(spec.origin).parent / file": "a path"},
    "metering/api/webhooks.py": {
        "services.clock.now_ms() / MS_PER_S": "seconds",
        "services.lookback.now_ms() / MS_PER_S": "seconds",
    },
    "metering/billing/coverage.py": {"0.0": "seconds"},
    "metering/billing/gateways/answers.py": {"float(text)": "seconds of Retry-After", "0.0": "the same"},
    "metering/billing/gateways/live.py": dict.fromkeys(["2.0", "4.0", "10.0", "15.0", "50.0"], "seconds"),
    "metering/billing/gateways/verbs.py": {"round(row['aggregated_value'])": "units that Stripe tells as a float"},
    "metering/billing/inbox.py": {"0.0": "seconds"},
    "metering/billing/price_terms.py": {
        "Decimal(tier.price_minor) / tier.per": "exact, or an error: decimal.Inexact is a trap there"
    },
    "metering/billing/sandbox/__main__.py": {"2.0": "seconds"},
    "metering/billing/sandbox/door.py": {
        "float(options.rate_per_s or 0)": "calls a second",
        "float(rate)": "the same",
    },
    "metering/billing/sandbox/events.py": {"0.0": "seconds"},
    "metering/billing/sandbox/meters.py": {"float(total(meter, known))": "Stripe tells units so"},
    "metering/billing/sandbox/serving.py": {"settings.data_dir.absolute() / FILE": "a path", "2.0": "seconds"},
    "metering/store/embedded.py": {"0.0": "seconds"},
    "metering/store/pace.py": {
        "int(await answered(self._pace(keys=[self._key], args=self._words))) / _US_PER_S": "seconds"
    },
    "metering/store/queue_owners.py": {"0.0": "seconds"},
    "metering/store/raw_names.py": {"float('-inf')": "before all times"},
    "metering/store/shared.py": {
        "float(score)": "the order of organisations",
        "float(part.next_dirty[1])": "ms, a score",
    },
    "metering/store/top.py": {"self.counted_ms / (1 << _TIME_BITS)": "a score that lets old traffic fade"},
    "metering/store/withdrawn.py": {"float(until)": "seconds, a score of the store"},
}
"""What is a float for a reason, by file: each expression as it stands there."""


def floats(source: str) -> Iterator[tuple[int, str]]:
    """Line and expression of everything that is or makes a float, but for constants in seconds."""
    tree = ast.parse(source)
    seconds = {id(inner) for node in ast.walk(tree) if _is_seconds(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.stmt) and id(node) not in seconds and _makes_a_float(node):
            yield node.lineno, ast.unparse(node)


def _is_seconds(node: ast.AST) -> bool:
    """Whether a node sets a constant whose name says that it is a time in seconds."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(one, ast.Name) and one.id.isupper() and one.id.endswith("_S") for one in targets)


def _makes_a_float(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in MAKERS
    return isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div) and not _is_path(node)


def _is_path(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether a `/` joins a path: text stands on its right."""
    right = node.right if isinstance(node, ast.BinOp) else node.value
    return isinstance(right, ast.JoinedStr) or (isinstance(right, ast.Constant) and isinstance(right.value, str))


@cache
def found() -> dict[str, list[tuple[int, str]]]:
    """All of them, by file."""
    every = {short(path): list(floats(path.read_text())) for path in files(*ROOMS, suffix=".py")}
    return {name: places for name, places in every.items() if places}


def test_no_room_that_handles_amounts_has_a_float() -> None:
    strange = [
        f"{name}:{line}: {text}"
        for name, places in found().items()
        for line, text in places
        if text not in ALLOWED.get(name, {})
    ]
    assert not strange, "\n".join([*strange, CURE])


def test_every_exception_is_still_needed() -> None:
    stands = {(name, text) for name, places in found().items() for _, text in places}
    assert {(name, text) for name, texts in ALLOWED.items() for text in texts} <= stands


def test_the_law_has_no_exception() -> None:
    assert not [name for name in ALLOWED if name.startswith("plans/")]


@pytest.mark.parametrize(
    ("planted", "expression"),
    [
        ("amount = units * 0.05", "0.05"),
        ("amount = price / per", "price / per"),
        ("amount /= 100", "amount /= 100"),
        ("amount = float(text)", "float(text)"),
        ("amount = round(exact)", "round(exact)"),
        ("amount = math.fsum(lines)", "math.fsum(lines)"),
        ("RATE: Final = 1e-2", "0.01"),
    ],
)
def test_a_planted_float_is_seen(planted: str, expression: str) -> None:
    assert [text for _, text in floats(planted)] == [expression]


@pytest.mark.parametrize("fine", ["PATIENCE_S: Final = 20.0", "place = folder / 'store'", "units = whole // per"])
def test_seconds_paths_and_whole_numbers_are_fine(fine: str) -> None:
    assert not list(floats(fine))
