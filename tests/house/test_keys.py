"""Every key shape has its tag, its end and a test of its literal text."""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Final

import pytest

from metering.store.keys import DATASET, SHAPES, Expiry, Kind, Shape
from tests.house.repo import ROOT, report

LITERALS: Final = ROOT / "tests/lua/test_keys.py"

CURE: Final = (
    "One script changes one slot: begin the pattern with the partition's tag {p<p>}, say who ends the key and what it "
    "holds, and write one such key out in tests/lua/test_keys.py."
)


def bad_shapes(shapes: Iterable[Shape]) -> Iterator[str]:
    """What is wrong with the table itself: tag, expiry, meaning, names that stand twice."""
    names: set[str] = set()
    for shape in shapes:
        if shape.pattern != DATASET and not shape.pattern.startswith("{p<p>}:"):
            yield f"{shape.name}: {shape.pattern} has no partition tag"
        if len(re.findall(r"[{}]", shape.pattern)) != len("{}"):
            yield f"{shape.name}: {shape.pattern} has more than one tag"
        if shape.expiry not in Expiry or shape.kind not in Kind or not shape.holds:
            yield f"{shape.name}: who ends it, what type it has or what it holds is missing"
        if shape.name in names or shape.pattern in names:
            yield f"{shape.name}: stands twice"
        names |= {shape.name, shape.pattern}


def unwritten(shapes: Iterable[Shape], test: str) -> list[str]:
    """Shapes without a key written out in the text of `test`."""
    texts = [node.value for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Constant)]
    literals = [text for text in texts if isinstance(text, str)]
    return [shape.name for shape in shapes if not any(map(shape.regex().fullmatch, literals))]


def test_every_shape_has_its_tag_its_end_and_its_meaning() -> None:
    found = list(bad_shapes(SHAPES))
    assert not found, report(found, CURE)


def test_one_key_of_every_shape_is_written_out_in_a_test() -> None:
    found = unwritten(SHAPES, LITERALS.read_text(encoding="utf-8"))
    assert not found, report(found, CURE)


@pytest.mark.parametrize(
    ("pattern", "holds", "fault"),
    [
        ("o:<org>", "x", "has no partition tag"),
        ("{<org>}:o", "x", "has no partition tag"),
        ("{meta}:other", "x", "has no partition tag"),
        ("{p<p>}:{<org>}", "x", "has more than one tag"),
        ("{p<p>}:o", "", "is missing"),
    ],
)
def test_a_bad_shape_is_seen(pattern: str, holds: str, fault: str) -> None:
    faults = list(bad_shapes([Shape("bad", pattern, Kind.HASH, Expiry.ORG, holds)]))
    assert fault in faults[0]


def test_a_shape_that_stands_twice_is_seen() -> None:
    shape = Shape("o", "{p<p>}:o:<org>", Kind.HASH, Expiry.ORG, "x")
    assert list(bad_shapes([shape, shape])) == ["o: stands twice"]


def test_a_shape_that_no_test_writes_out_is_seen() -> None:
    shape = Shape("record", "{p<p>}:o:<org>", Kind.HASH, Expiry.ORG, "x")
    assert unwritten([shape], "key == '{p<p>}:o:<org>'") == ["record"]
    assert unwritten([shape], "key == '{p1a}:o:acme'") == []
