"""docs/api.md against the service: every route is in it, every example works, every code is named."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from metering.api.routes import ROUTES
from metering.errors import leaves
from tests.house.repo import ROOT
from tests.support.service import ServiceProcess, clean_environment

PAGE: Final = (ROOT / "docs" / "api.md").read_text()


def examples() -> list[str]:
    """Every curl command of the page; continued lines and bodies over several lines are one."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    return [found.strip() for found in re.findall(r"^curl (?:[^'\n\\]|\\\n|'[^']*')*", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """One service for the whole page, with what it tells to set: later examples look at what earlier ones did."""
    with ServiceProcess(settings={"EVENT_RETENTION": "24h"}) as running:
        yield running


def run(command: str, service: ServiceProcess) -> str:
    """One example as it stands, failing on any status but 2xx."""
    environment = clean_environment(URL=service.url, TOKEN=service.token())
    done = subprocess.run(
        ["bash", "-c", re.sub(r"curl (-s\w*)", r"curl \1 --fail-with-body", command, count=1)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_page_names_every_route(route: object) -> None:
    """A route that the page does not name is one that nobody finds."""
    paths = [getattr(route, "path"), *getattr(route, "aliases")]  # noqa: B009
    missing = [path for path in paths if not re.search(rf"{re.escape(path)}(?![\w/])", PAGE)]
    assert not missing, f"docs/api.md does not name {missing}"


@pytest.mark.parametrize("code", [leaf.code for leaf in leaves()])
def test_page_names_every_problem(code: str) -> None:
    """Codes are what clients program against."""
    assert f"`{code}`" in PAGE


def test_every_example_of_the_page_works_in_its_order(service: ServiceProcess) -> None:
    """Every command exits 0, and the first answer is the one shown but for its dates."""
    answers = [run(command, service) for command in examples()]
    assert len(answers) == len(re.findall(r"^curl ", PAGE, re.MULTILINE)), "an example that is not run"
    shown, first = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0]), json.loads(answers[0])
    dates = ("reset_date", "period")
    assert list(first) == list(shown)
    assert {k: v for k, v in first.items() if k not in dates} == {k: v for k, v in shown.items() if k not in dates}
    assert json.loads(answers[2])["features"]["scans"]["current"] == 5
    assert json.loads(answers[2])["features"]["api_requests"]["current"] == 1
