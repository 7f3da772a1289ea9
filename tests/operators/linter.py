"""The rules of Grafana's dashboard-linter, and of the documented JSON of dashboards, in words of ours.

https://github.com/grafana/dashboard-linter has the rules' names; the program itself is not had here. That queries are
PromQL is what a real Prometheus says of each (test_real_prometheus.py). The fields are those that Grafana documents:
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Board = dict[str, Any]

UNITS: Final = frozenset(
    """
    none short percent percentunit bytes decbytes bits Bps bps dateTimeAsIso dateTimeFromNow hertz ns µs ms s m h d
    dtdurations cps ops reqps rps wps iops cpm opm rpm wpm bool bool_yes_no bool_on_off
    """.split()
)
"""Those of the linter's list that a service may need."""

BOARD_FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    "id": (type(None),), "uid": (str,), "title": (str,), "tags": (list,), "timezone": (str,), "editable": (bool,),
    "graphTooltip": (int,), "panels": (list,), "time": (dict,), "timepicker": (dict,), "templating": (dict,),
    "annotations": (dict,), "refresh": (str,), "schemaVersion": (int,), "version": (int,), "links": (list,),
}  # fmt: skip
PANEL_TYPES: Final = frozenset({"timeseries", "stat", "bargauge", "gauge", "table", "text", "row"})
VARIABLE_TYPES: Final = frozenset({"query", "datasource", "textbox", "custom", "constant", "interval", "adhoc"})
_COLUMNS: Final = 24

_SELECTOR: Final = re.compile(r"([a-z_]+)\{([^}]*)\}(?:\[([^\]]+)\])?")
_GROWTH: Final = ("rate(", "irate(", "increase(")


def variables(board: Board) -> dict[str, Any]:
    """The variables of a dashboard by name."""
    return {one["name"]: one for one in board["templating"]["list"]}


def panels(board: Board) -> Iterator[dict[str, Any]]:
    """The panels that show something."""
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def targets(board: Board) -> Iterator[tuple[str, str]]:
    """Each query with its panel's title."""
    yield from ((panel["title"], target["expr"]) for panel in panels(board) for target in panel["targets"])


# ── the linter's rules: each yields the panel ('': the dashboard) and what is wrong ──────────────────────────

Fault = tuple[str, str]
Rule = Callable[[Board], Iterator[Fault]]


def template_datasource(board: Board) -> Iterator[Fault]:
    """One data source is a variable of the name and label that all dashboards give it."""
    sources = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    if [(one["name"], one["label"], one["query"]) for one in sources] != [("datasource", "Data source", "prometheus")]:
        yield "", "no data source variable `datasource`, labelled `Data source`, of Prometheus"


def _template(board: Board, name: str) -> Iterator[Fault]:
    one = variables(board).get(name)
    wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
    if one is None or {field: one.get(field) for field in wanted} != wanted:
        yield "", f"the variable {name} is not {wanted}"
    elif one["datasource"]["uid"] != "${datasource}":
        yield "", f"the variable {name} asks another data source"


def template_job(board: Board) -> Iterator[Fault]:
    """The job is a variable of which several can be chosen, or all."""
    yield from _template(board, "job")


def template_instance(board: Board) -> Iterator[Fault]:
    """The instance too."""
    yield from _template(board, "instance")


def template_label(board: Board) -> Iterator[Fault]:
    """What is asked for the values of a variable is a label, of a selector."""
    for name, one in variables(board).items():
        asked = one["query"]["query"] if one["type"] == "query" else "label_values(x, y)"
        if not re.fullmatch(r"label_values\([a-z_]+(\{[a-z_]+=~?\"[^\"]*\"\})?, [a-z_]+\)", asked):
            yield "", f"the variable {name} asks {asked}"


def template_reload(board: Board) -> Iterator[Fault]:
    """Values are asked again when the time shown changes."""
    for name, one in variables(board).items():
        if one["type"] == "query" and one["refresh"] != 2:
            yield "", f"the variable {name} is not loaded again when the time changes"


def panel_datasource(board: Board) -> Iterator[Fault]:
    """Every panel and query asks the data source that was chosen."""
    for panel in panels(board):
        asked = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        if any(one != {"type": "prometheus", "uid": "${datasource}"} for one in asked):
            yield panel["title"], "another data source"


def panel_title_description(board: Board) -> Iterator[Fault]:
    """Every panel says what it is and what it shows."""
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description"):
            yield panel.get("title", ""), "no title or no description"


def panel_units(board: Board) -> Iterator[Fault]:
    """Every panel has a unit that Grafana knows."""
    for panel in panels(board):
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield panel["title"], "no unit, or none that is known"


def panel_no_targets(board: Board) -> Iterator[Fault]:
    """Every panel asks something."""
    yield from ((panel["title"], "no query") for panel in panels(board) if not panel["targets"])


def target_rate_interval(board: Board) -> Iterator[Fault]:
    """A rate is over the interval that fits the scrapes."""
    for title, expr in targets(board):
        for call, window in re.findall(r"\b(i?rate)\([^[\]]*\[([^\]]+)\]", expr):
            if window != "$__rate_interval":
                yield title, f"{call} over {window}"


def _matcher(board: Board, label: str) -> Iterator[Fault]:
    for title, expr in targets(board):
        for name, labels, _ in _SELECTOR.findall(expr):
            if f'{label}=~"${label}"' not in labels:
                yield title, f"{name} of every {label}"


def target_job(board: Board) -> Iterator[Fault]:
    """Every selector is of the job that was chosen."""
    yield from _matcher(board, "job")


def target_instance(board: Board) -> Iterator[Fault]:
    """And of the instance."""
    yield from _matcher(board, "instance")


def target_counter_agg(board: Board) -> Iterator[Fault]:
    """A counter is shown as how it grows."""
    for title, expr in targets(board):
        for found in _SELECTOR.finditer(expr):
            if found[1].endswith("_total") and not (found[3] and expr[: found.start()].endswith(_GROWTH)):
                yield title, f"{found[1]} is a counter"


def uneditable(board: Board) -> Iterator[Fault]:
    """What is provisioned is not edited in place."""
    if board["editable"]:
        yield "", "editable"


RULES: Final[Mapping[str, Rule]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-instance-rule": template_instance,
    "template-label-promql-rule": template_label,
    "template-on-time-change-reload-rule": template_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-instance-rule": target_instance,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}


# ── the documented fields ────────────────────────────────────────────────────────────────────────────────────


def undocumented(board: Board) -> Iterator[str]:
    """What of a dashboard is not as Grafana documents it, as far as these dashboards use it."""
    for field, value in board.items():
        if type(value) not in BOARD_FIELDS.get(field, ()):
            yield f"field {field}"
    if not 8 <= len(board["uid"]) <= 40 or not re.fullmatch(r"[a-zA-Z0-9_-]+", board["uid"]):
        yield "uid"
    if not re.fullmatch(r"\d+[smhd]", board["refresh"]) or set(board["time"]) != {"from", "to"}:
        yield "refresh or time"
    for name, one in variables(board).items():
        if one["type"] not in VARIABLE_TYPES or not re.fullmatch(r"[A-Za-z_]+", name):
            yield f"variable {name}"
    for link in (*board["links"], *(link for panel in panels(board) for link in panel["links"])):
        if not {"title"} < link.keys() or not {"url", "type"} & link.keys():
            yield f"link {link}"
    for panel in board["panels"]:
        yield from _undocumented_panel(panel)


def _undocumented_panel(panel: dict[str, Any]) -> Iterator[str]:
    place = panel["gridPos"]
    sound = set(place) == {"x", "y", "w", "h"} and all(isinstance(value, int) for value in place.values())
    if not sound or not 0 <= place["x"] < place["x"] + place["w"] <= _COLUMNS or place["h"] < 1 or place["y"] < 0:
        yield f"{panel['title']}: gridPos"
    if panel["type"] not in PANEL_TYPES or type(panel["id"]) is not int:
        yield f"{panel['title']}: type or id"
    if panel["type"] == "row" and (panel["collapsed"], panel["panels"]) != (False, []):
        yield f"{panel['title']}: a row that is open holds no panels"
