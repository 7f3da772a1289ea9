"""Draws a dashboard's data as Prometheus has it, panel by panel, as one SVG: no Grafana is needed to look at it.

`python -m grafana.picture http://127.0.0.1:9090 picture.svg --minutes 60`
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from grafana.make import ROWS, Panel

WIDTH: Final = 1200
COLUMNS: Final = 3
GAP: Final = 12
HEAD: Final = 34
HEIGHT: Final = 168
SERIES_MAX: Final = 7
"""Of one panel: more lines than that nobody tells apart here. What is left out is said."""

POINTS: Final = 60
COLOURS: Final = ("#3366cc", "#dc6900", "#109618", "#990099", "#0099a8", "#b82e2e", "#66661a")
_LARGE: Final = 100
"""Figures below are shown with three digits, those above with two behind the point."""

_PLOT_TOP: Final = 42
_PLOT_HEIGHT: Final = 68
_CHARS: Final = 46

Labels = dict[str, str]
Points = list[tuple[float, float]]
Ask = Callable[[str, Mapping[str, str]], Any]
"""Asks Prometheus' API for a path with parameters, and gives the `data` of the answer."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is shown: from and until, in seconds, and over how much a rate is taken."""

    start_s: float
    end_s: float
    rate_s: int

    def filled(self, expr: str) -> str:
        """A panel's expression as Grafana would send it for all jobs and instances."""
        seen = max(1, round(self.end_s - self.start_s))
        variables = {"$__rate_interval": f"{self.rate_s}s", "$__range": f"{seen}s", "$job": ".+", "$instance": ".+"}
        for name, value in variables.items():
            expr = expr.replace(name, value)
        return expr


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a panel: its name, and its points by time."""

    name: str
    points: Points

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]

    @property
    def most(self) -> float:
        """Its highest value."""
        return max(value for _, value in self.points)


def asking(url: str) -> Ask:
    """Asks a Prometheus at an address."""

    def ask(path: str, parameters: Mapping[str, str]) -> Any:
        with urlopen(f"{url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:  # noqa: S310 - the operator's
            return json.load(answer)["data"]

    return ask


def series_of(panel: Panel, ask: Ask, span: Span) -> list[Series]:
    """A panel's data: over time where it shows a course, else as it is at the end."""
    found: list[Series] = []
    for expr, legend in panel.queries:
        query = {"query": span.filled(expr)}
        if panel.kind == "timeseries":
            step = max(1, round((span.end_s - span.start_s) / POINTS))
            answer = ask("query_range", query | {"start": str(span.start_s), "end": str(span.end_s), "step": str(step)})
            found += [Series(name_of(legend, one["metric"]), numbers(one["values"])) for one in answer["result"]]
        else:
            answer = ask("query", query | {"time": str(span.end_s)})
            found += [Series(name_of(legend, one["metric"]), numbers([one["value"]])) for one in answer["result"]]
    return sorted((one for one in found if one.points), key=lambda one: (-one.most, one.name))


def numbers(values: list[tuple[float, str]]) -> Points:
    """Points without those that are no number."""
    return [(at, float(text)) for at, text in values if text not in {"NaN", "+Inf", "-Inf"}]


def name_of(legend: str, labels: Labels) -> str:
    """A series' name, as its legend says."""
    return Template(legend.replace("{{", "${").replace("}}", "}")).safe_substitute(labels)


# ── figures as people read them ──────────────────────────────────────────────────────────────────────────


def shown(value: float, unit: str, now_s: float) -> str:
    """A figure in its unit."""
    if unit == "percentunit":
        return f"{100 * value:.4g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or not value else f"{1000 * value:.3g} ms"
    if unit in {"bool_yes_no", "bool_on_off"}:
        return ("no", "yes")[value > 0] if unit == "bool_yes_no" else ("off", "on")[value > 0]
    if unit == "dateTimeFromNow":
        return f"{max(0, now_s - value / 1000):.0f} s ago"
    return plain(value) + {"reqps": " req/s", "cps": " events/s", "ops": " /s"}.get(unit, "")


def plain(value: float) -> str:
    """A number: whole where it is."""
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < _LARGE else f"{value:,.2f}"


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────


def text(x: float, y: float, words: str, kind: str, fill: str = "") -> str:
    """A line of text."""
    colour = f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}"{colour}>{escape(words)}</text>'


def panel_drawn(panel: Panel, found: list[Series], span: Span, width: float) -> Iterator[str]:
    """One panel, with its left upper corner at 0, 0."""
    yield f'<rect width="{width:g}" height="{HEIGHT}" rx="4" class="panel"/>'
    yield text(10, 21, panel.title, "title")
    if not found:
        yield text(10, 70, "no data", "legend")
    elif panel.kind == "timeseries":
        yield from lines(panel, found[:SERIES_MAX], span, width)
    else:
        yield from bars(panel, found[:SERIES_MAX], span, width)
    if len(found) > SERIES_MAX:
        yield text(width - 70, 21, f"{len(found) - SERIES_MAX} more", "legend")


def bars(panel: Panel, found: list[Series], span: Span, width: float) -> Iterator[str]:
    """Figures as they are now: one large, several as bars."""
    if len(found) == 1:
        yield text(10, 92, shown(found[0].last, panel.unit, span.end_s), "large", COLOURS[0])
        yield text(10, 118, found[0].name, "legend")
        return
    most = max(one.last for one in found) or 1
    for at, one in enumerate(found):
        y = _PLOT_TOP + 2 + at * 18
        long = (width - 20) * max(0, one.last) / most
        yield f'<rect x="10" y="{y}" width="{long:.1f}" height="14" fill="{COLOURS[at]}" opacity="0.25"/>'
        words = f"{one.name}: {shown(one.last, panel.unit, span.end_s)}"
        yield text(14, y + 11, words[:_CHARS], "legend")


def lines(panel: Panel, found: list[Series], span: Span, width: float) -> Iterator[str]:
    """Figures over time, from 0 to the highest."""
    most = max(one.most for one in found) or 1
    base = _PLOT_TOP + _PLOT_HEIGHT
    yield f'<path d="M10 {base}H{width - 10:g}M10 {_PLOT_TOP}H{width - 10:g}" class="axis"/>'
    yield text(10, _PLOT_TOP - 3, shown(most, panel.unit, span.end_s), "axis")
    for at, one in enumerate(found):
        places = [
            f"{10 + (width - 20) * (when - span.start_s) / (span.end_s - span.start_s):.0f},"
            f"{base - _PLOT_HEIGHT * value / most:.0f}"
            for when, value in one.points
        ]
        yield f'<polyline points="{" ".join(places)}" stroke="{COLOURS[at]}" class="line"/>'
    legends = [f"{one.name} {shown(one.last, panel.unit, span.end_s)}" for one in found]
    for at, words in enumerate(legends[:6]):
        column, row = at % 2, at // 2
        yield text(
            10 + column * (width - 20) / 2, base + 17 + row * 15, words[: _CHARS // 2 + 2], "legend", COLOURS[at]
        )


STYLE: Final = """
text{font-family:system-ui,sans-serif;fill:#222}.title{font-size:13px;font-weight:600}.row{font-size:16px;font-weight:700}
.legend{font-size:11px}.axis{font-size:10px;fill:#777;stroke:none}path.axis{stroke:#ddd;fill:none}
.large{font-size:34px;font-weight:600}.panel{fill:#fff;stroke:#d5d5d5}.line{fill:none;stroke-width:1.6}
"""


def picture(ask: Ask, span: Span, said: str) -> str:
    """The whole dashboard. `said` is the line under its name."""
    width = (WIDTH - (COLUMNS + 1) * GAP) / COLUMNS
    parts = [text(GAP, 26, "Usage metering", "row"), text(GAP + 150, 26, said, "legend")]
    y = HEAD
    for title, panels in ROWS:
        parts.append(text(GAP, y + 24, title, "row"))
        y += HEAD
        for at, panel in enumerate(panels):
            x, down = GAP + at % COLUMNS * (width + GAP), y + at // COLUMNS * (HEIGHT + GAP)
            inside = "".join(panel_drawn(panel, series_of(panel, ask, span), span, width))
            parts.append(f'<g transform="translate({x:g} {down:g})">{inside}</g>')
        y += -(-len(panels) // COLUMNS) * (HEIGHT + GAP)
    size = f'viewBox="0 0 {WIDTH} {y + GAP}" width="{WIDTH}" height="{y + GAP}"'
    ground = '<rect width="100%" height="100%" fill="#f4f5f7"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>Usage metering</title><style>{STYLE}</style>{ground}'
    return head + "\n".join(parts) + "</svg>\n"


def main() -> None:
    """Draw what a Prometheus has of the last minutes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("url", help="the Prometheus, as http://127.0.0.1:9090")
    options.add_argument("file", type=Path, help="the SVG to write")
    options.add_argument("--minutes", type=float, default=60, help="how much of the past is shown")
    told = options.parse_args()
    end_s = time.time()
    span = Span(end_s - told.minutes * 60, end_s, rate_s=60)
    told.file.write_text(picture(asking(told.url), span, f"the last {told.minutes:g} minutes"), encoding="utf-8")


if __name__ == "__main__":
    main()
