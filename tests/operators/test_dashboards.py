"""Dashboards: as the generator makes them, by the rules of Grafana's own linter, and of metrics that exist."""

import re
from pathlib import Path
from typing import Any, Final

import pytest

from grafana.make import dashboards, text_of
from metering.families import BATCHES, NAMED, QUEUED, SPREADS
from tests.house.repo import ROOT
from tests.operators.files import DASHBOARDS, GRAFANA, METRIC, alerts, dashboard, panels, queries, yaml_of

UNITS: Final = frozenset("short s reqps cps ops percentunit dateTimeFromNow bool_on_off bool_yes_no".split())
"""Of Grafana's, those that are used."""

SUFFIXES: Final = ("_bucket", "_count", "_sum")
BUSINESS: Final = re.compile(r"max without \(instance\)|min\(|max\(|count by")
"""What may stand around figures that every replica shows."""


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_committed_is_what_the_generator_makes(name: str) -> None:
    made = text_of(dashboards()[name])
    assert (GRAFANA / name).read_text() == made, "run `python -m grafana.make`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_provisioned(name: str) -> None:
    board = dashboard(name)
    assert (board["id"], board["editable"]) == (None, False)
    assert "__inputs" not in board
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance"} <= set(variables)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_on_another(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.parametrize(
    ("name", "panel"), [(name, panel) for name in DASHBOARDS for panel in panels(name)],
    ids=lambda value: value["title"] if isinstance(value, dict) else value,
)  # fmt: skip
def test_every_panel_says_what_it_shows_in_which_unit_from_which_source(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]
    for target in panel["targets"]:
        selectors = re.findall(r"\{([^}]*)\}", target["expr"])
        assert selectors
        assert all('job=~"$job"' in one and 'instance=~"$instance"' in one for one in selectors)
        assert set(re.findall(r"\[([^\]]+)\]", target["expr"])) <= {"$__rate_interval", "$__range", "1h"}
        assert target["legendFormat"]


def test_links_lead_to_the_pages_of_alerts() -> None:
    names = {rule["alert"] for rule in alerts()}
    linked = {link["title"] for name in DASHBOARDS for panel in panels(name) for link in panel["links"]}
    assert linked <= names
    assert names - linked <= {"MeteringDown"}, "an alert whose figure no panel shows"


def known() -> set[str]:
    """The names of the metrics of the service as families, from where they are declared."""
    source = (ROOT / "metering" / "families.py").read_text()
    plain = set(re.findall(r'_gauge\(\s*"([a-z_]+)"', source))
    plain |= set(re.findall(r'_summary\(\s*"([a-z_]+)"', source))
    plain |= {f"{name}_total" for name in re.findall(r'_counter\(\s*"([a-z_]+)"', source)}
    plain |= {f"metering_batch_{name}_total" for name in BATCHES} | {f"metering_queue_{name}_total" for name in QUEUED}
    plain |= {
        f"{kind}_{name}"
        for kind in ("metering_queue", "metering_stripe_inbox")
        for name in ("entries", "oldest_seconds", "dead")
    }
    plain |= {f"{named.metric}_total" for named in NAMED.values()}
    return plain | {spread.metric for spread in SPREADS} | {"scorpius_usage_api_duration_seconds"}


def used(text: str) -> set[str]:
    """The families that a text names."""
    found = set(METRIC.findall(text))
    ends = {name: next((end for end in SUFFIXES if name.endswith(end)), "") for name in found}
    return {name.removesuffix(ends[name]) if name.removesuffix(ends[name]) in known() else name for name in found}


def at_stripe(name: str) -> bool:
    """Whether a name is one that Stripe is told: a lookup key of a price, or a tag of an object."""
    tags = "".join(path.read_text() for path in (ROOT / "metering" / "billing").glob("*.py"))
    return re.fullmatch(r"metering_[a-z_]+_(base|overage)(_[a-z]+)?", name) is not None or f'"{name}"' in tags


def test_panels_and_alerts_name_metrics_that_exist_and_leave_none_out() -> None:
    shown = {name for board in DASHBOARDS for _, expr in queries(board) for name in used(expr)}
    watched = {name for rule in alerts() for name in used(rule["expr"])}
    assert shown | watched <= known()
    assert known() == shown, "a metric is in a panel"


def test_the_documentation_names_every_metric_and_none_that_does_not_exist() -> None:
    pages = {path: path.read_text() for path in (ROOT / "docs").rglob("*.md")}
    listed = used(pages[ROOT / "docs" / "metrics.md"])
    assert known() == listed
    for path, text in pages.items():
        strange = {
            name for name in used(text) if name not in known() and not name.endswith("_") and not at_stripe(name)
        }
        assert not strange, f"{path.name} names {strange}"


def test_figures_of_the_business_are_never_added_up_over_replicas() -> None:
    business = {name for name in known() if name.startswith("scorpius_")} - {"scorpius_usage_api_duration_seconds"}
    business |= {name for name in known() if name.endswith("_minor")} | {"metering_payments_total"}
    for board in DASHBOARDS:
        for title, expr in queries(board):
            if used(expr) & business:
                assert BUSINESS.search(expr), f"{title}: {expr}"


def test_provisioning_names_what_there_is() -> None:
    for path in (GRAFANA / "provisioning").rglob("*.yml"):
        read = yaml_of(path)
        assert read["apiVersion"] == 1
    assert Path(GRAFANA / "prometheus.yml").exists()
