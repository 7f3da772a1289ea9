"""The stand-in for Stripe beside the service: when it is started, what the workers are told, and how it ends."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from metering.sandbox_place import Answering, Place, beside_sandbox
from metering.settings import Settings, SettingsError
from tests.support.service import END_S, START_S, TINY, ServiceProcess, call, children, gone
from tests.support.wait import wait_until


def tiny(data_dir: Path, *options: str, **settings: str) -> ServiceProcess:
    """A service whose workers, and whose stand-in for Stripe, are the tiny app."""
    return ServiceProcess(*options, data_dir=data_dir, entry=TINY, ready="/pid", settings=settings)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with tiny(tmp_path, "--sandbox") as service:
        yield service


def told(service: ServiceProcess, name: str) -> str:
    """What a worker has in its environment."""
    return str(service.call(f"/environment/{name}")[1])


def says(service: ServiceProcess, text: str) -> None:
    """Wait for a line of the start: it comes just after the first answer."""
    wait_until(lambda: text in service.output(), timeout_s=START_S, what=f"the service says {text}")


def sandbox_pid(service: ServiceProcess) -> int:
    """The process that answers as the stand-in."""
    return int(call(f"{told(service, 'STRIPE_API_BASE')}/pid")[1])


def test_the_workers_are_told_of_the_sandbox_and_both_share_secrets_and_store(service: ServiceProcess) -> None:
    base = told(service, "STRIPE_API_BASE")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", base)
    assert re.fullmatch(r"sk_sandbox_[\w-]{60,}", told(service, "STRIPE_SECRET_KEY"))
    assert (told(service, "TEST_CLOCK").lower(), told(service, "OVERAGE_PUSH_S")) == ("true", "2.0")
    for name in ("STRIPE_SECRET_KEY", "REDIS_URL"):
        assert call(f"{base}/environment/{name}")[1] == told(service, name)
    says(service, f"stripe  SANDBOX at {base}, no money moves")
    assert sandbox_pid(service) in children(service.pid)


def test_a_second_start_keeps_the_secrets(service: ServiceProcess) -> None:
    before = told(service, "STRIPE_SECRET_KEY")
    service.terminate()
    secrets = Place(service.data_dir).secrets
    secrets.write_text("whsec_one\nwhsec_two\n")
    service.start()
    assert told(service, "STRIPE_SECRET_KEY") == before
    assert told(service, "STRIPE_WEBHOOK_SECRET") == "whsec_one,whsec_two"
    assert (service.data_dir / "stripe-sandbox-key").stat().st_mode & 0o777 == 0o600


def test_a_killed_sandbox_is_started_again_at_the_same_address(service: ServiceProcess) -> None:
    base, first = told(service, "STRIPE_API_BASE"), sandbox_pid(service)
    os.kill(first, signal.SIGKILL)

    def another() -> bool:
        try:
            return int(call(f"{base}/pid")[1]) != first
        except OSError:
            return False

    wait_until(another, timeout_s=START_S, what="another sandbox answers")


def test_the_sandbox_ends_with_the_service_however_that_ends(service: ServiceProcess) -> None:
    first, note = sandbox_pid(service), Place(service.data_dir).note
    assert note.exists()
    assert service.terminate() == 0
    assert gone(first)
    assert not note.exists()
    service.start()
    second = sandbox_pid(service)
    service.kill()
    wait_until(lambda: gone(second), timeout_s=END_S, what="the sandbox ends with its killed parent")


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ((), {}, "not configured"),
        (("--sandbox",), {"STRIPE_SECRET_KEY": "sk_test_1"}, "Stripe itself in test mode"),
        (("--sandbox",), {"STRIPE_SECRET_KEY": "sk_live_1"}, "Stripe itself, LIVE: money moves"),
    ],
)
def test_where_nobody_asks_or_a_key_is_set_there_is_no_sandbox(
    tmp_path: Path, options: tuple[str, ...], settings: dict[str, str], words: str
) -> None:
    with tiny(tmp_path, *options, **settings) as service:
        says(service, f"stripe  {words}")
        assert not told(service, "STRIPE_API_BASE").startswith("http")
        assert not Place(tmp_path).note.exists()


def test_a_store_that_somebody_runs_gets_a_sandbox_only_in_development(tmp_path: Path) -> None:
    with tiny(tmp_path / "owner") as owner:
        url = told(owner, "REDIS_URL")
        with tiny(tmp_path / "a", "--sandbox", REDIS_URL=url) as plain:
            says(plain, "stripe  not configured")
        with tiny(tmp_path / "b", "--sandbox", REDIS_URL=url, DEBUG="true") as forced:
            says(forced, "stripe  SANDBOX at")


def test_a_port_that_is_taken_ends_the_start_with_a_cure(service: ServiceProcess, tmp_path: Path) -> None:
    port = told(service, "STRIPE_API_BASE").rpartition(":")[2]
    with tiny(tmp_path / "other") as other:
        url = told(other, "REDIS_URL")
        second = tiny(tmp_path / "second", "--sandbox", REDIS_URL=url, DEBUG="true", STRIPE_SANDBOX_PORT=port)
        second.start(healthy=False)
        assert second.wait() != 0
        assert f"the sandbox Stripe cannot listen on port {port}" in second.output()


def test_a_command_beside_the_service_finds_the_sandbox_and_only_while_it_runs(tmp_path: Path) -> None:
    place, settings = Place(tmp_path), Settings(data_dir=tmp_path)
    assert beside_sandbox(settings) is settings
    Answering(os.getpid(), "http://127.0.0.1:1").write(place)
    found = beside_sandbox(settings)
    assert found.stripe_secret_key == SecretStr(place.key())
    assert (found.stripe_api_base, found.test_clock) == ("http://127.0.0.1:1", True)
    keyed = Settings(data_dir=tmp_path, stripe_secret_key=SecretStr("sk_test_1"))
    assert beside_sandbox(keyed) is keyed
    Answering(2**22 + 1, "http://127.0.0.1:1").write(place)
    assert beside_sandbox(settings) is settings
    place.note.write_text("[]")
    assert beside_sandbox(settings) is settings


def test_a_kept_secret_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "stripe-sandbox-key").write_text("sk_live_" + "x" * 60)
    with pytest.raises(SettingsError, match="nothing that begins with sk_sandbox_"):
        Place(tmp_path).key()
