"""What operators load into Prometheus and Grafana, as the tests read it, and the tools that judge it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.house.repo import ROOT

GRAFANA: Final = ROOT / "grafana"
ALERTS: Final = GRAFANA / "alerts.yml"
DASHBOARDS: Final = ("usage-dashboard.json", "organisation-dashboard.json")
METRIC: Final = re.compile(r"\b(?:scorpius|metering)_[a-z0-9_]+")


def programs(name: str) -> list[str]:
    """Where a program of Prometheus is: one place, or none."""
    found = shutil.which(name)
    return [] if found is None else [found]


def missing_programs(ci: str | None) -> str:
    """What to do where they are not here: nothing at home, but a build machine (CI set) has them."""
    missing = [name for name in ("prometheus", "promtool") if not programs(name)]
    return f"CI is set and there is no {' and no '.join(missing)}: apt install prometheus" if ci and missing else ""


def promtool(*arguments: str | Path) -> str:
    """What promtool says: '' where it is not installed. Fails with it where it finds a fault."""
    said = ""
    for program in programs("promtool"):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
    return said


def yaml_of(path: Path) -> Any:
    """A YAML file as plain values."""
    return YAML(typ="safe", pure=True).load(path)


def write_yaml(value: object, path: Path) -> None:
    """Values as a YAML file, which JSON is."""
    path.write_text(json.dumps(value))


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as it is committed."""
    read: dict[str, Any] = json.loads((GRAFANA / name).read_text())
    return read


def panels(name: str) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, without its rows."""
    yield from (panel for panel in dashboard(name)["panels"] if panel["type"] != "row")


def queries(name: str) -> Iterator[tuple[str, str]]:
    """Each panel's title with each of its expressions."""
    yield from ((panel["title"], target["expr"]) for panel in panels(name) for target in panel["targets"])


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    groups = yaml_of(ALERTS)["groups"]
    return [rule for group in groups for rule in group["rules"]]
