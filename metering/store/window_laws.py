"""The laws of overage on its way out: every unit of it that was sealed is in one window, every window in one place.

Of each counter: sealed less netted = units of its windows, which follow each other without a gap, from the mark up to
which windows of a final period were pruned; delivered and written off are the sums of those that are, and of what was
pruned. Overage that is not sealed stands among the dirty or the unbilled.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from metering.store.window import OPEN, State, Window, parsed

Hash = Mapping[str, str]

Breach = tuple[str, object]
"""Which law is broken, and what was found."""

WINDOW_FIELDS: Final = ("s", "z", "y", "d", "q", "g")


def counter_laws(record: Hash, feature: str, windows: list[Window]) -> Iterator[Breach]:
    """What is wrong with one counter and its windows."""
    sealed, netted, back, delivered, let_go, gone = (int(record.get(f"{kind}:{feature}", 0)) for kind in WINDOW_FIELDS)
    if not 0 <= netted <= min(sealed, back):
        yield "0 <= netted <= sealed and given back", (netted, sealed, back)
    if gone and "final" not in record:
        yield "windows of final periods alone are pruned", gone
    ends = sorted((window.cut.from_units, window.cut.to_units) for window in windows)
    starts = [gone, *(to for _, to in ends)]
    if [start for start, _ in ends] != starts[:-1] or starts[-1] != sealed - netted:
        yield "windows follow each other, from what is pruned up to what is sealed", (gone, ends, sealed - netted)
    yield from _sum_laws(delivered, let_go, gone, windows)


def _sum_laws(delivered: int, let_go: int, gone: int, windows: list[Window]) -> Iterator[Breach]:
    """Where nothing is pruned these say that either sum is that of its windows."""
    kept = {state: sum(w.units for w in windows if w.state is state) for state in State}
    if delivered < kept[State.DELIVERED]:
        yield "delivered >= windows that are", (delivered, kept[State.DELIVERED])
    if let_go < kept[State.WRITTEN_OFF]:
        yield "written off >= windows that are", (let_go, kept[State.WRITTEN_OFF])
    if delivered + let_go != gone + kept[State.DELIVERED] + kept[State.WRITTEN_OFF]:
        yield "delivered and written off = pruned and windows that are", (delivered, let_go, gone, kept)


def list_laws(lists: Mapping[str, Any], orgs: set[str]) -> Iterator[Breach]:
    """What is wrong with the lists of a partition: each window stands in the one of its state, and nothing else does.

    `lists` also holds the rows of all windows under `window`, `orgs` are the organisations there.
    """
    windows, broken = readable(lists.get("window", {}))
    if broken:
        yield "a window can be read", broken
    if not {window.cut.org_id for window in windows} <= orgs:
        yield "windows belong to organisations here", sorted(orgs)
    wanted: dict[str, set[str]] = defaultdict(set)
    for window in windows:
        wanted[_list_of(window.state)].add(window.id)
    for name in ("outbox", "settled", "dead_windows"):
        if set(lists.get(name, {})) != wanted[name]:
            yield f"{name} = windows of that state", (sorted(lists.get(name, {})), sorted(wanted[name]))


def _list_of(state: State) -> str:
    if state in OPEN:
        return "outbox"
    return "dead_windows" if state is State.DEAD else "settled"


def unsealed_laws(org_id: str, counters: Mapping[str, tuple[Hash, str]], lists: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with the lists of overage that is not sealed; `counters` are the organisation's by their member."""
    must = {member for member, (record, feature) in counters.items() if _unsealed(record, feature)}
    dirty, put_by = (
        {name for name in lists.get(kind, {}) if name.split("|")[0] == org_id} for kind in ("dirty", "unbilled")
    )
    if dirty | put_by != must or dirty & put_by:
        yield "dirty and unbilled = overage not sealed", (sorted(dirty), sorted(put_by), sorted(must))


def _unsealed(record: Hash, feature: str) -> bool:
    return int(record.get(f"x:{feature}", 0)) > int(record.get(f"s:{feature}", 0))


def readable(rows: Mapping[str, Hash]) -> tuple[list[Window], list[str]]:
    """The windows of a partition, and the names of rows that cannot be read."""
    found: list[Window] = []
    broken: list[str] = []
    for name, row in rows.items():
        try:
            found.append(parsed(name, row))
        except (KeyError, ValueError):
            broken.append(name)
    return found, broken
