"""Both dashboards are what Grafana's own models of them say, field by field."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.operators.files import DASHBOARDS, dashboard
from tests.operators.models import strange


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_grafanas_models_take(name: str) -> None:
    assert strange(dashboard(name)) == []


def _panel(board: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    return found


BREAKS: Final[dict[str, tuple[Callable[[dict[str, Any]], None], str]]] = {
    "a field of the board": (lambda board: board.update(titel="x"), "$.titel"),
    "a type of the board": (lambda board: board.update(editable="no"), "$.editable"),
    "a field of a panel": (lambda board: _panel(board).update(titel="x"), ".titel"),
    "a place": (lambda board: _panel(board)["gridPos"].update(w="12"), ".grid_pos.w"),
    "a query": (lambda board: _panel(board)["targets"][0].update(expression="up"), ".expression"),
    "a unit": (lambda board: _panel(board)["fieldConfig"]["defaults"].update(unit=7), ".unit"),
    "a way to draw": (lambda board: _panel(board)["fieldConfig"]["defaults"].update(custom={"fill": 1}), ".fill"),
    "an option": (lambda board: _panel(board).update(options={"shown": True}), ".shown"),
    "a choice": (lambda board: board.update(graphTooltip=9), "$.graph_tooltip"),
    "a variable": (lambda board: board["templating"]["list"][1].update(refresh=7), ".refresh"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_they_do_not_take_is_found(broken: str) -> None:
    board = dashboard(DASHBOARDS[0])
    breaks, where = BREAKS[broken]
    breaks(board)
    found = strange(board)
    assert len(found) == 1
    assert where in found[0]
