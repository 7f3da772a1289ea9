"""Both dashboards hold the rules of Grafana's own linter, and each rule finds what it is for."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.operators.files import DASHBOARDS, GRAFANA, dashboard, yaml_of
from tests.operators.linter import RULES, Board, undocumented, variables

EXCLUDED: Final[dict[str, Any]] = yaml_of(GRAFANA / ".lint")["exclusions"]
EXCEPT: Final = {
    (rule, entry["panel"]) for rule, told in EXCLUDED.items() for entry in told["entries"]
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_holds_the_rules_of_grafanas_linter(name: str, rule: str) -> None:
    faults = [(panel, what) for panel, what in RULES[rule](dashboard(name)) if (rule, panel) not in EXCEPT]
    assert not faults


def test_every_exception_is_one_with_a_reason() -> None:
    broken = {(rule, panel) for name in DASHBOARDS for rule in RULES for panel, _ in RULES[rule](dashboard(name))}
    assert broken == EXCEPT, "an exception that is not needed"
    assert all(told["reason"] for told in EXCLUDED.values())


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_the_fields_that_grafana_documents_and_no_others(name: str) -> None:
    assert not list(undocumented(dashboard(name)))


# ── each rule finds its fault ────────────────────────────────────────────────────────────────────────────────


def panel(board: Board) -> Any:
    return board["panels"][1]


def asks(expr: str) -> Callable[[Board], None]:
    return lambda board: panel(board)["targets"][0].update(expr=expr)


S: Final = 'job=~"$job",instance=~"$instance"'
FAULTS: Final[dict[str, Callable[[Board], None]]] = {
    "template-datasource-rule": lambda board: variables(board)["datasource"].update(name="DS_PROMETHEUS"),
    "template-job-rule": lambda board: variables(board)["job"].update(multi=False),
    "template-instance-rule": lambda board: variables(board)["instance"].update(allValue=".*"),
    "template-label-promql-rule": lambda board: variables(board)["job"]["query"].update(query="label_values(up{, job)"),
    "template-on-time-change-reload-rule": lambda board: variables(board)["job"].update(refresh=1),
    "panel-datasource-rule": lambda board: panel(board)["targets"][0].update(datasource={"uid": "mine"}),
    "panel-title-description-rule": lambda board: panel(board).update(description=""),
    "panel-units-rule": lambda board: panel(board)["fieldConfig"]["defaults"].update(unit="pints"),
    "panel-no-targets-rule": lambda board: panel(board).update(targets=[]),
    "target-rate-interval-rule": asks(f"sum(rate(x_total{{{S}}}[5m]))"),
    "target-job-rule": asks('x{instance=~"$instance"}'),
    "target-instance-rule": asks('x{job=~"$job"}'),
    "target-counter-agg-rule": asks(f"x_total{{{S}}}"),
    "uneditable-dashboard": lambda board: board.update(editable=True),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_its_fault(rule: str) -> None:
    board = dashboard(DASHBOARDS[0])
    before = set(RULES[rule](board))
    FAULTS[rule](board)
    assert set(RULES[rule](board)) - before


SPOILT: Final[dict[str, Callable[[Board], None]]] = {
    "another field": lambda board: board.update(__inputs=[]),
    "another type": lambda board: board.update(version="1"),
    "uid": lambda board: board.update(uid="short"),
    "refresh": lambda board: board.update(refresh="soon"),
    "variable": lambda board: variables(board)["job"].update(type="list"),
    "place": lambda board: panel(board)["gridPos"].update(w=30),
    "panel": lambda board: panel(board).update(type="graph"),
    "row": lambda board: board["panels"][0].update(collapsed=True),
    "link": lambda board: board["links"].append({"title": "x"}),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_grafana_does_not_document_is_found(what: str) -> None:
    board = dashboard(DASHBOARDS[0])
    SPOILT[what](board)
    assert len(list(undocumented(board))) == 1
