"""A page of metrics as tests read it: its samples, its faults, and what went backwards since another one."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly_read
from prometheus_client.parser import text_string_to_metric_families

Key: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and labels."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_NOT_BASE: Final = ("_ms", "_milliseconds", "_us", "_minutes", "_kilobytes", "_percent")
_ONLY_GROWS: Final = ("_total", "_count", "_sum", "_bucket")


class Page:
    """A page in the text format: `page["name", ("label", "value")]` is a sample's value. `worker` answered it."""

    def __init__(self, text: str, worker: str = "") -> None:
        self.text, self.worker = text, worker
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples: dict[Key, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __getitem__(self, key: tuple[str, tuple[str, str]] | str) -> float:
        name, *labels = (key,) if isinstance(key, str) else key
        return self.samples[name, frozenset(labels)]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples of one name, by the values of these labels, added up over the others."""
        found: dict[tuple[str, ...], float] = {}
        for (sample, pairs), value in self.samples.items():
            if sample == name:
                place = tuple(dict(pairs)[label] for label in labels)
                found[place] = found.get(place, 0) + value
        return found

    def total(self, name: str) -> float:
        """The sum of all samples of one name."""
        return sum(value for (sample, _), value in self.samples.items() if sample == name)

    def counters(self) -> dict[Key, float]:
        """The samples that may only grow."""
        return {key: value for key, value in self.samples.items() if key[0].endswith(_ONLY_GROWS)}


def backwards(before: Page, after: Page) -> list[str]:
    """Counters of `before` that are lower in `after`, or missing."""
    now: Mapping[Key, float] = after.counters()
    return [f"{key}: {was} -> {now.get(key)}" for key, was in before.counters().items() if now.get(key, -1) < was]


def open_metrics(text: str) -> list[Metric]:
    """The families of a page in the OpenMetrics format. Raises ValueError when it is not in that format."""
    return list(strictly_read(text))  # type: ignore[no-untyped-call]


def faults(text: str) -> list[str]:
    """What is wrong with a page: promtool's findings where it is installed, and always our own."""
    return [*own_faults(text), *_promtool(text)]


def _promtool(text: str) -> Iterator[str]:
    tool = shutil.which("promtool")
    if tool is not None:
        done = subprocess.run(
            [tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30
        )
        yield from (done.stdout + done.stderr).splitlines()


def own_faults(text: str) -> Iterator[str]:
    """What is wrong with a page by the rules of this house, which are promtool's and a few more."""
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    yield from (f"stands twice: {line}" for line in {line for line in lines if lines.count(line) > 1})
    for family in Page(text).families:
        name = family.name + "_total" * (family.type == "counter")
        for head in ("HELP", "TYPE"):
            if len(re.findall(rf"^# {head} {name} \S", text, re.MULTILINE)) != 1:
                yield f"{name}: no {head}"
        if not _NAME.fullmatch(name) or name.endswith(_NOT_BASE):
            yield f"{name}: not a name in base units"
        if family.type not in {"counter", "gauge", "histogram", "summary"}:
            yield f"{name}: type {family.type}"
        if any("quantile" in sample.labels for sample in family.samples):  # nobody can add them up
            yield f"{name}: a quantile"
        if family.type != "counter" and name.endswith(("_total", "_count", "_sum", "_bucket")):
            yield f"{name}: ends like a counter"
        if any(sample.name.endswith("_created") for sample in family.samples):
            yield f"{name}: a _created series"
