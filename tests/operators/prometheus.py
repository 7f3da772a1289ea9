"""A real Prometheus beside a service, on the rules with their durations made short."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote
from urllib.request import urlopen

from tests.operators.files import ALERTS, write_yaml
from tests.support.servers import free_port
from tests.support.wait import wait_until

START_S: Final = 20.0
SCALE: Final = 300
"""Hours of the rules are seconds here."""

_AGES: Final = 900
"""Ages are divided by this: one that means an hour is reached in four seconds."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WINDOW_MS: Final = 6000
_FOR_MS: Final = 3000
"""The least a window and a wait may be: some scrapes must lie in each."""


def shortened(rules: str) -> str:
    """The rules with durations and ages made short."""

    def ms(number: str, unit: str, least: int) -> str:
        return f"{max(least, int(number) * _UNITS[unit] * 1000 // SCALE)}ms"

    rules = re.sub(r"\[(\d+)([smhd])\]", lambda found: f"[{ms(found[1], found[2], _WINDOW_MS)}]", rules)
    rules = re.sub(r"for: (\d+)([smhd])", lambda found: f"for: {ms(found[1], found[2], _FOR_MS)}", rules)
    return re.sub(r"(oldest_seconds\)) > (\d+)", lambda found: f"{found[1]} > {int(found[2]) / _AGES}", rules)


class Prometheus:
    """`with Prometheus(program, "127.0.0.1:8005") as prometheus:` scrapes that address and judges the rules."""

    def __init__(self, program: str, target: str) -> None:
        self._program, self._folder = program, Path(tempfile.mkdtemp(prefix="prometheus-"))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        (self._folder / "alerts.yml").write_text(shortened(ALERTS.read_text()))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "usage-metering", "static_configs": [{"targets": [target]}]}],
        }
        write_yaml(config, self._folder / "prometheus.yml")
        self._options = (
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )

    def ask(self, path: str) -> Any:
        """What its API answers as data."""
        with urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:  # noqa: S310 - loopback, made by the test
            return json.load(answer)["data"]

    def query(self, expr: str) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query: the value of each series, by its labels but for the scraper's own."""
        found = self.ask(f"query?query={quote(expr)}")
        if found["resultType"] == "scalar":
            return {(): float(found["result"][1])}
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k not in {"job", "instance", "__name__"})): float(
                one["value"][1]
            )
            for one in found["result"]
        }

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"}

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310 - loopback, made by the test
                return bool(answer.status == 200)
        except OSError:
            return False

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([self._program, *self._options], stdout=log, stderr=log)
        wait_until(self._ready, timeout_s=START_S, what=f"Prometheus is ready; {(self._folder / 'log').read_text()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
