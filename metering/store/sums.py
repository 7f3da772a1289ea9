"""Sums over the records of organisations, as the conservation law compares them."""

from collections import Counter
from collections.abc import Iterable, Mapping


def figures(record: Mapping[str, str], kind: str) -> dict[str, int]:
    """The numbers of one kind (u, x, s, b) by feature."""
    return {name[2:]: int(value) for name, value in record.items() if name.startswith(f"{kind}:")}


def ever_by_plan(record: Mapping[str, str]) -> Counter[str]:
    """Units ever, by `plan:feature`: all under the plan that is, but for those that moved with a plan change."""
    units = Counter(figures(record, "p"))
    for kind in ("u", "b"):
        units.update({f"{record['plan']}:{feature}": n for feature, n in figures(record, kind).items()})
    return units


def taken_out(records: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Units taken out ever, by feature. What a plan change moves adds up to nothing; this is what is left over."""
    units: Counter[str] = Counter()
    for record in records:
        for place, moved in figures(record, "p").items():
            units[place.partition(":")[2]] += moved
    return {feature: moved for feature, moved in units.items() if moved}


def sums_of(records: Iterable[Mapping[str, str]], kind: str) -> Counter[str]:
    """The sum of the numbers of one kind by feature, those above zero."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(figures(record, kind))
    return +total
