"""`metering stripe setup` and `doctor` against the sandbox that runs beside a service."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from metering.sandbox_place import Answering, Place
from tests.support.service import ServiceProcess, clean_environment
from tests.support.witnessed_sandbox import NAME, faults

CATALOGUE: Final = """
version = 2
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features.scans]
title = "Scans"
unit = "scan"
stripe_meter_event = "scorpius_scans_overage"
overage_model = "graduated"
overage_tiers = [ { up_to = 100, price_minor = 25 }, { price_minor = 1, per = 8, flat_minor = 3 } ]
[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "overage"
features = { scans = { limit = 10 } }
[plans.professional]
title = "Professional"
reset = "calendar"
price_minor = 10900
on_limit = "overage"
features = { scans = { limit = 100 } }
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess("--sandbox", data_dir=tmp_path_factory.mktemp("served"), entry=NAME) as running:
        yield running
        assert faults(running.data_dir) == ""


def stripe(service: ServiceProcess, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command beside the service."""
    environment = clean_environment(DATA_DIR=str(service.data_dir), **settings)
    command = (sys.executable, "-m", "metering.cli", "stripe", *words)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=service.data_dir)


def test_after_a_start_nothing_is_left_to_set_up_and_the_doctor_finds_no_fault(service: ServiceProcess) -> None:
    again = stripe(service, "setup", "--yes", "--url", service.url)
    assert again.stdout.splitlines()[0] == "Stripe: sandbox"
    assert again.stdout.splitlines()[-1] == "nothing to do", again.stderr
    checked = stripe(service, "doctor", "--url", service.url, "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [one for one in json.loads(checked.stdout)["checks"] if not one["ok"]] == []


def test_two_secrets_were_kept_and_nobody_else_may_read_them(service: ServiceProcess) -> None:
    kept = Place(service.data_dir).secrets
    assert [line.startswith("whsec_") for line in kept.read_text().split()] == [True, True]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_changed_catalogue_is_seen_shown_and_made_once(service: ServiceProcess, tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(CATALOGUE)
    sick = stripe(service, "doctor", PLANS_FILE=str(file))
    assert sick.returncode == 1
    assert "FAIL  price metering_professional_base" in sick.stdout
    shown = stripe(service, "setup", "--dry-run", PLANS_FILE=str(file))
    assert (shown.returncode, "2 to do" in shown.stdout) == (0, True)
    assert stripe(service, "setup", "--dry-run", PLANS_FILE=str(file)).stdout == shown.stdout
    refused = stripe(service, "setup", PLANS_FILE=str(file))
    assert refused.returncode == 1  # nobody is there to be asked
    done = stripe(service, "setup", "--yes", PLANS_FILE=str(file))
    assert (done.returncode, done.stdout.count("changed  price")) == (0, 2), done.stderr
    assert "nothing to do" in stripe(service, "setup", "--yes", PLANS_FILE=str(file)).stdout
    assert stripe(service, "doctor", PLANS_FILE=str(file)).returncode == 0


def test_another_endpoint_tells_its_secrets_once(service: ServiceProcess) -> None:
    answering = Answering.read(Place(service.data_dir))
    assert answering is not None
    key = Place(service.data_dir).key()
    settings = {"STRIPE_SECRET_KEY": key, "STRIPE_API_BASE": answering.url}
    url = "https://other.example/webhooks/stripe"
    moved = stripe(service, "setup", "--yes", "--url", url, **settings)
    assert "changed  webhook endpoint" in moved.stdout, moved.stderr
    assert moved.stdout.splitlines()[-1].startswith("STRIPE_WEBHOOK_SECRET=whsec_")
    assert "nothing to do" in stripe(service, "setup", "--yes", "--url", url, **settings).stdout


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"STRIPE_SECRET_KEY": ""}, "there is no key for Stripe"),
        ({"STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_API_BASE": "http://127.0.0.1:9"}, "Stripe"),
        (
            {"STRIPE_SECRET_KEY": "sk_live_1", "STRIPE_API_BASE": "http://127.0.0.1:9"},
            "a live key goes to Stripe alone",
        ),
    ],
)
def test_what_keeps_a_command_from_stripe_is_told_with_a_cure(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), **settings)
    command = (sys.executable, "-m", "metering.cli", "stripe", "setup", "--dry-run")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) >= 2
