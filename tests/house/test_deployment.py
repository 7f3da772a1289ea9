"""What the container files and the example of settings promise."""

import re
from typing import Final

import pytest

from metering.settings import Settings
from tests.house.repo import ROOT, report

INTERNAL: Final = {"STORE_KIND"}
"""Set by one process of the service for another."""

COMPOSE_ONLY: Final = {"VALKEY_PASSWORD", "VALKEY_MAXMEMORY", "GRAFANA_PASSWORD"}
"""Read by compose.yaml, for what runs beside the service."""


def text(name: str) -> str:
    """A file of the repository's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def examples(example: str) -> dict[str, str]:
    """The settings of an example file with their values, commented out or not."""
    return dict(re.findall(r"(?m)^#?([A-Z][A-Z_]+)=(.*)$", example))


def items(compose: str) -> list[str]:
    """The entries of the lists of a compose file, without their quotes."""
    return [item.strip("\"'") for item in re.findall(r"(?m)^ +- (.*)$", compose)]


def test_the_example_names_every_setting_and_no_other() -> None:
    known = {name.upper() for name in Settings.model_fields} - INTERNAL | COMPOSE_ONLY
    found = sorted(known ^ set(examples(text(".env.example"))))
    assert not found, report(found, "Settings and .env.example name the same settings: add it, or take it out.")


def test_the_example_shows_the_defaults() -> None:
    shown = examples(text(".env.example"))
    rows = {row.name: row.value for row in Settings().describe() if not row.value.startswith("****")}
    found = [f"{name}: {shown[name]}, not {value}" for name, value in rows.items() if shown.get(name, value) != value]
    assert not found, report(found, "Show the default in .env.example.")


def test_every_line_of_the_example_is_a_comment() -> None:
    live = re.findall(r"(?m)^[^#\n].*$", text(".env.example"))
    assert not live, report(live, "Comment it out: a copy of the example changes nothing by itself.")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--appendonly", "yes"), ("--appendfsync", "always"), ("--maxmemory-policy", "noeviction")],
)
def test_the_store_of_compose_loses_nothing(option: str, value: str) -> None:
    entries = items(text("compose.yaml"))
    assert entries[entries.index(option) + 1] == value, f"Put {option} {value}: the service refuses a weaker store."


def test_files_that_compose_mounts_are_there_and_grafana_finds_its_dashboards_where_they_are_mounted() -> None:
    mounts = [item.split(":")[:2] for item in items(text("compose.yaml")) if item.startswith("./")]
    assert len(mounts) >= 4
    assert not [source for source, _ in mounts if not (ROOT / source).exists()]
    folder = re.search(r"path: (.*)", text("grafana/provisioning/dashboards/usage-metering.yml"))
    assert folder
    assert sum(target.startswith(f"{folder[1]}/") and target.endswith(".json") for _, target in mounts) == 2


@pytest.mark.parametrize(
    "line",
    [
        "USER 10001:10001",
        "STOPSIGNAL SIGTERM",
        'CMD ["metering", "serve", "--host", "0.0.0.0", "--port", "8005"]',
        'CMD ["metering", "health"]',
    ],
)
def test_the_image_runs_as_nobody_and_hears_signals(line: str) -> None:
    assert re.search(rf"(?m)^.*{re.escape(line)}$", text("Dockerfile")), f"Put back into the Dockerfile: {line}"


def test_the_image_is_made_of_the_lock() -> None:
    installs = re.findall(r'RUN \["/venv/bin/pip", "install", (.*)\]', text("Dockerfile"))
    assert [("--require-hashes" in line or "--no-deps" in line) for line in installs] == [True, True]


def test_reading_an_example_finds_what_is_commented_out() -> None:
    assert examples("# Words, PORT=1\n#PORT=8005\nHOST=a\n# HOST = b\n") == {"PORT": "8005", "HOST": "a"}
