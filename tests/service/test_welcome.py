"""What a start prints: whom it shows a token, and lines that work from any folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metering.clock import SystemClock
from metering.settings import Settings, StoreKind
from metering.welcome import Welcome
from tests.support.service import clean_environment

SECRET = "s" * 32


def _lines(*, show_token: bool = False, program: str = "metering", **settings: Any) -> str:
    """The welcome of a service that a parent bound to `host`."""
    given = {"jwt_secret": SECRET, "store_kind": StoreKind.EMBEDDED, "host": "127.0.0.1", **settings}
    welcome = Welcome(Settings(**given), SystemClock(), "a store", "no stripe", show_token=show_token, program=program)
    return "\n".join(welcome.lines())


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "debug": True}, False),
        ({"host": "10.0.0.7"}, False),
        ({"redis_url": "redis://h"}, False),
        ({"redis_url": "redis://h", "debug": True}, True),
        ({"host": "0.0.0.0", "show_token": True}, True),
        ({"redis_url": "redis://h", "show_token": True}, True),
    ],
)
def test_a_token_is_shown_on_loopback_or_when_asked_for(settings: dict[str, Any], shown: bool) -> None:
    assert ("eyJ" in _lines(**settings)) is shown


@pytest.mark.parametrize(("plans", "feature"), [(None, "scans"), ("s1", "tokens"), ("s4", "api_requests")])
def test_the_printed_event_is_of_a_feature_that_the_catalogue_has(plans: str | None, feature: str) -> None:
    assert f'"feature": "{feature}"' in _lines(plans_file=plans)


@pytest.mark.parametrize("program", ["metering", "something_else.py"])
def test_the_command_in_the_printed_lines_works_where_nothing_is_on_the_path(tmp_path: Path, program: str) -> None:
    script = Path(sys.executable).with_name(program)
    (asked, *_) = re.findall(r"\$\((.* token .*?)\)", _lines(host="0.0.0.0", program=str(script)))
    environment = clean_environment(JWT_SECRET=SECRET, PATH="/nowhere")
    done = subprocess.run(
        ["/bin/sh", "-c", asked], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout), done.stderr
    assert shlex.split(asked)[0] == str(script if program == "metering" else sys.executable)
