"""The README as a newcomer meets it: a fresh copy, an empty home, its commands as they stand."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from metering.settings import Settings
from tests.house.repo import ROOT, files
from tests.support.servers import free_port
from tests.support.service import call
from tests.support.soak import SOAK
from tests.support.wait import wait_until

README: Final = (ROOT / "README.md").read_text()
PORT: Final = str(free_port())

START_S: Final = 300.0
"""Installation included: a build machine that does much besides takes several times as long as one at rest."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in one language, the port replaced by a free one."""
    return [found.replace("8005", PORT) for found in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)]


def lend(place: Path) -> None:
    """A virtual environment that finds our packages, so that pip sees what is there and installs the project alone.

    To install them all anew costs a minute, and a build machine has just done it for this suite, by the same rules of
    the Makefile and from a lock that holds all of this one. A soak lends nothing.
    """
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")


class Newcomer:
    """A copy of the project, a home with nothing in it, and a shell that keeps what it exports."""

    def __init__(self, place: Path) -> None:
        self.place = place / "usage-metering"
        for path in files():
            target = self.place / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        home = place / "home"
        home.mkdir()
        kept = {
            name: value for name, value in os.environ.items() if name in ("PATH", "LANG") or name.startswith("PIP_")
        }
        self.environment = {**kept, "HOME": str(home), "PIP_NO_CACHE_DIR": "1"}
        if not SOAK:
            lend(self.place / ".venv")
        self.exports: list[str] = []
        self.log = place / "log"
        self._service: subprocess.Popen[bytes] | None = None

    def make_run(self) -> None:
        """`make run` in the background, on the free port."""
        with self.log.open("wb") as log:
            self._service = subprocess.Popen(
                ["make", "run", f"ARGS=--port {PORT}"], cwd=self.place, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        wait_until(self._healthy, timeout_s=START_S, what="make run is healthy")

    def _healthy(self) -> bool:
        assert self._service is not None
        assert self._service.poll() is None, self.log.read_text()
        try:
            return bool(call(f"http://127.0.0.1:{PORT}/health")[1]["status"] == "healthy")
        except OSError:
            return False

    def type(self, command: str) -> str:
        """Run one command as it stands; what it printed. What an `export` sets is kept for the next ones."""
        name = command.removeprefix("export ").partition("=")[0] if command.startswith("export ") else ""
        script = "\n".join(["set -e", *self.exports, command, f'printf %s "${name}"' if name else ""])
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.place, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if name:
            self.exports.append(f"export {name}={shlex.quote(done.stdout)}")
        return done.stdout

    def end(self) -> int:
        """Ctrl-C."""
        assert self._service is not None
        if self._service.poll() is None:
            os.killpg(self._service.pid, signal.SIGINT)
        return self._service.wait(20)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """A newcomer whose `make run` is healthy."""
    somebody = Newcomer(tmp_path_factory.mktemp("newcomer"))
    try:
        somebody.make_run()
        yield somebody
    finally:
        somebody.end()


def commands() -> list[str]:
    """Every command of the README in order; continued lines are one."""
    text = "\n".join(blocks("sh")).replace("\\\n", "")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def shown_answer() -> dict[str, Any]:
    """The JSON that the README shows for the first event."""
    found: dict[str, Any] = json.loads(blocks("json")[0])
    return found


def test_readme_commands_are_those_this_test_knows_how_to_run() -> None:
    """A new command in the README needs its check here, or it would be claimed and not run."""
    kinds = [shlex.split(command)[0] for command in commands()]
    assert kinds == [
        "make", "export", *["curl"] * 9,
        "export", "curl", "curl", "curl", "export", "curl", ".venv/bin/metering", "curl", "curl",
        "make", *[".venv/bin/metering"] * 3,
    ]  # fmt: skip


def test_make_run_serves_a_fresh_copy_and_the_first_answer_is_the_one_shown(newcomer: Newcomer) -> None:
    """`make run`, then the README's commands: the first event's answer is the README's but for the dates."""
    export, track, update, view, metrics = commands()[1:6]
    newcomer.type(export)
    answer, shown = json.loads(newcomer.type(track)), shown_answer()
    assert list(answer) == list(shown)
    dates = ("reset_date", "period")
    assert {k: v for k, v in answer.items() if k not in dates} == {k: v for k, v in shown.items() if k not in dates}
    assert json.loads(newcomer.type(track))["duplicate"] is True
    assert "event-conflict" in newcomer.type(track.replace('"quantity":5', '"quantity":6'))
    over = json.loads(newcomer.type(track.replace("evt-1", "evt-2").replace('"quantity":5', '"quantity":6')))
    assert (over["allowed"], over["current_usage"], over["overage"], over["remaining"]) == (True, 11, 1, 0)
    assert json.loads(newcomer.type(update))["features"]["scans"]["limit"] == 1000
    assert json.loads(newcomer.type(view))["features"]["scans"]["current"] == 11
    series = 'scorpius_org_usage_total{org_id="org-123"} 11.0'
    wait_until(lambda: series in newcomer.type(metrics), timeout_s=20, what=f"{series} in the metrics")


def test_what_the_readme_shows_besides_works_on_the_same_figures(newcomer: Newcomer) -> None:
    """Asked, held, committed, sent by the batch, and looked back at: after the first events of the test above."""
    check, reserve, commit, batch, history = (json.loads(newcomer.type(command)) for command in commands()[6:11])
    assert (check["allowed"], check["current_usage"], check["limit"]) == (True, 11, 1000)
    assert (reserve["status"], reserve["reserved"]) == ("held", 20)
    assert (commit["recorded"], commit["current_usage"], commit["duplicate"]) == (12, 23, False)
    assert (batch["accepted"], batch["rejected"]) == (1, 1)
    assert batch["results"][1]["problem"]["nearest"] == "scans"
    assert sum(row["value"] for row in history["data"] if row["feature"] == "scans") == 24


@pytest.mark.parametrize("number", range(21, 24))
def test_every_other_command_of_the_readme_works(newcomer: Newcomer, number: int) -> None:
    """The command exits 0 and prints something."""
    assert newcomer.type(commands()[number]).strip()


def test_the_three_lines_that_a_start_prints_work_as_they_are(newcomer: Newcomer) -> None:
    """The curl lines of `make run`'s own output, pasted."""
    lines = [line.strip() for line in newcomer.log.read_text().splitlines() if line.strip().startswith("curl ")]
    assert len(lines) == 3
    for line in lines:
        assert "error" not in newcomer.type(line.replace("curl ", "curl -sf ", 1)).lower()


def billed(audit: dict[str, Any]) -> list[tuple[str, int]]:
    """The usage that Stripe's side took: customer and units of each event."""
    return [(one["payload"]["stripe_customer_id"], int(one["payload"]["value"])) for one in audit["accepted"]]


def test_the_walk_ends_with_an_invoice_of_ten_scans_and_a_counter_that_begins_again(newcomer: Newcomer) -> None:
    """Bought, paid, used above the limit, told to Stripe once, and invoiced when the month has passed."""
    checkout, pay, view, track, sandbox, audit, advance, audit_again, view_again = commands()[11:20]
    newcomer.type(checkout)
    newcomer.type(pay)

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(newcomer.type(view))
        return found

    wait_until(lambda: seen()["plan"] == "professional", timeout_s=20, what="acme has the plan it paid for")
    assert json.loads(newcomer.type(track))["overage"] == 10
    newcomer.type(sandbox)
    wait_until(lambda: billed(json.loads(newcomer.type(audit))), timeout_s=30, what="Stripe's side was told of overage")
    customer = seen()["stripe_customer_id"]
    assert newcomer.type(advance).strip()
    told = json.loads(newcomer.type(audit_again))
    assert billed(told) == [(customer, 10)]
    assert told["rejected"] == []
    (renewal,) = [one for one in told["invoices"] if one["billing_reason"] == "subscription_cycle"]
    assert (renewal["status"], renewal["customer"], renewal["total"]) == ("paid", customer, 9900 + 250)
    assert [(line["quantity"], line["amount"]) for line in renewal["lines"]["data"] if line["quantity"] == 10] == [
        (10, 250)
    ]
    again = json.loads(newcomer.type(view_again))["features"]["scans"]
    assert (again["current"], again["overage"], again["limit"]) == (0, 0, 1000)


def test_settings_table_names_every_setting_with_its_default() -> None:
    """The README's table and the settings are the same list."""
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.*?) \|", README, re.MULTILINE)
    shown = {name: value for names, values in rows for name, value in zip(*_columns(names, values), strict=True)}
    assert shown == {name.upper(): _default(name) for name in Settings.model_fields if name != "store_kind"}


def _default(name: str) -> str:
    """A setting's default as the table writes it."""
    value = Settings.model_fields[name].get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value is None else str(value)


def _columns(names: str, values: str) -> tuple[list[str], list[str]]:
    """The names of a row, and a default for each: one for all of them, or one each."""
    found, given = re.findall(r"`(\w+)`", names), [value.strip(" `") for value in values.split(",")]
    return found, given * len(found) if len(given) == 1 else given
