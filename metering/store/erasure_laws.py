"""The laws of erased organisations: of each there is the mark, and once all is taken away nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_NAMING: Final = frozenset({"erased", "erasing"})

Breach = tuple[str, object]


def erasure_laws(marks: Mapping[str, list[str]], lists: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong in one partition: `marks` are the erased organisations there and what other keys each has, `lists`
    the members of its lists, by the list's name.
    """
    if set(lists.get("erased", {})) != set(marks):
        yield "erased = the marks", (sorted(lists.get("erased", {})), sorted(marks))
    waiting = set(lists.get("erasing", {}))
    if not waiting <= set(marks):
        yield "erasing <= the marks", sorted(waiting)
    left = {name: keys for name, keys in marks.items() if keys and name not in waiting}
    if left:
        yield "of an erased organisation nothing but its mark is left", left
    named = {
        name: kind
        for kind, members in lists.items()
        if kind not in _NAMING
        for name in (member.partition("|")[0] for member in members)
        if name in marks and name not in waiting
    }
    if named:
        yield "no list names an erased organisation", named
