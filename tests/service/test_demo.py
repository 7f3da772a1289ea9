"""`make demo`: organisations in every state, a month of history, and every line of the tour works."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from metering.demo import DAYS, STATES, spread
from tests.support.servers import free_port
from tests.support.service import END_S, clean_environment
from tests.support.wait import wait_until

START_S: Final = 120.0
"""A month of sandbox time with an invoice in it takes some fifteen seconds; the rest is for a machine that is busy."""


class Shown:
    """A demonstration that runs."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "demo.log"
        self._environment = clean_environment(TMPDIR=str(folder), REDIS_DB="7")
        command = (sys.executable, "-m", "metering.cli", "demo", "--port", str(free_port()))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        self._folder = folder

    def folders(self) -> list[Path]:
        """The data folders that are left."""
        return list(self._folder.glob("metering-demo-*"))

    def text(self) -> str:
        return self._log.read_text()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.text()
        return "Ctrl-C" in self.text()

    def paste(self, line: str) -> Any:
        """What a line gives in a shell where the first two were pasted."""
        exports = re.findall(r"^  (export .*)$", self.text(), re.MULTILINE)
        script = "\n".join([*exports, line.replace("curl -s", "curl -s --fail-with-body", 1)])
        done = subprocess.run(
            ["bash", "-c", script], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def lines(self) -> list[str]:
        return re.findall(r"^  (curl .*)$", self.text(), re.MULTILINE)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    demo = Shown(tmp_path_factory.mktemp("demo"))
    try:
        wait_until(demo.ready, timeout_s=START_S, what="the demonstration is ready")
        yield demo
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(END_S) == 0, demo.text()
        assert demo.folders() == []
    finally:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(END_S)


def test_every_line_of_the_tour_works(shown: Shown) -> None:
    lines = shown.lines()
    assert len(lines) >= 9
    answers = [shown.paste(line) for line in lines]
    assert all(answers)


def test_there_is_an_organisation_in_each_state(shown: Shown) -> None:
    [line] = [line for line in shown.lines() if "/v1/orgs?" in line]
    orgs = {org["org_id"]: org for org in shown.paste(line)["data"]}
    assert set(orgs) == {*STATES, "overdue"}
    scans = {name: org["features"]["scans"] for name, org in orgs.items()}
    assert (scans["fine"]["percent"], scans["nearly"]["percent"]) == (40, 85)
    assert (scans["over"]["overage"] >= 4, orgs["over"]["overage_flagged"]) == (True, True)
    assert scans["unlimited"]["unlimited"] is True
    assert (orgs["low"]["credits"]["low"], orgs["low"]["credits"]["balance"], scans["low"]["overage"]) == (True, 8, 0)
    assert [name for name, org in orgs.items() if org["payment_overdue"]] == ["overdue"]


def test_there_is_a_month_of_history(shown: Shown) -> None:
    [line] = [line for line in shown.lines() if "history" in line]
    days = shown.paste(line)["data"]
    assert sum(day["value"] for day in days) == STATES["nearly"][1]
    assert len([day for day in days if day["value"]]) >= DAYS - 2


def test_a_month_adds_up_whatever_is_used_in_it() -> None:
    assert all(sum(spread(units, DAYS)) == units for units in (0, 1, 14, 850, 25_000))
    assert min(spread(850, DAYS)) > 0
