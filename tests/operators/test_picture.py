"""The picture of the dashboard: every panel with its data, as it is committed and as it is drawn."""

from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest

from grafana.make import ROWS, Panel
from grafana.picture import Span, name_of, picture, plain, series_of, shown
from tests.operators.drawing import FILE

SPAN: Final = Span(1000, 1060, rate_s=10)
TITLES: Final = [panel.title for _, panels in ROWS for panel in panels]


def words(svg: str) -> list[str]:
    """What a picture says."""
    return [one.text or "" for one in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - ours


def test_what_is_committed_shows_data_in_every_panel_that_there_is() -> None:
    said = words(FILE.read_text())
    missing = [title for title in TITLES if title not in said]
    assert not missing, f"draw it again with `python -m tests.operators.drawing`: {missing}"
    assert "no data" not in said


def answering(path: str, parameters: Mapping[str, str]) -> Any:
    """A Prometheus with one series, and one that is no number."""
    value = "NaN" if "refund" in parameters["query"] else "7"
    assert "$" not in parameters["query"]
    one = {"metric": {"feature": "a<b"}, "value": [1060, value], "values": [[1000, "1"], [1060, value]]}
    return {"result": [one if path == "query" else {**one, "value": None}]}


def test_a_picture_has_every_panel_and_says_where_there_is_no_data() -> None:
    said = words(picture(answering, SPAN, "a test"))
    assert set(TITLES) <= set(said)
    assert "a<b" in " ".join(said)
    assert said.count("no data") == 1  # the refund rate: nobody has bought


def test_series_begin_with_the_highest_and_are_named_as_the_panel_says() -> None:
    def ask(path: str, parameters: Mapping[str, str]) -> Any:
        return {"result": [{"metric": {"plan": name}, "values": values} for name, values in (
            ("free", [[1000, "1"]]), ("pro", [[1000, "9"], [1060, "2"]]), ("gone", [[1000, "NaN"]]),
        )]}  # fmt: skip

    panel = Panel("Units", "", "short", (("x", "{{plan}}"),))
    assert [(one.name, one.last) for one in series_of(panel, ask, SPAN)] == [("pro", 2), ("free", 1)]
    assert name_of("{{a}}, {{b}}", {"a": "1", "b": "2"}) == "1, 2"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.8, "percentunit", "80 %"), (0.0123, "s", "12.3 ms"), (0, "s", "0 s"), (12.34, "s", "12.3 s"),
        (1, "bool_yes_no", "yes"), (0, "bool_on_off", "off"), (1_000_000, "dateTimeFromNow", "60 s ago"),
        (12.5, "reqps", "12.5 req/s"), (3, "ops", "3 /s"), (1234567, "short", "1,234,567"),
    ],
)  # fmt: skip
def test_figures_are_shown_in_their_unit(value: float, unit: str, expected: str) -> None:
    assert shown(value, unit, 1060) == expected


def test_numbers_are_whole_where_they_are() -> None:
    assert [plain(2166.6667), plain(0.12345), plain(4.0)] == ["2,166.67", "0.123", "4"]
