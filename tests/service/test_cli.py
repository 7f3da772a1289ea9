"""The command line: each command does what it says, each error is one sentence and its cure."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from pydantic import SecretStr

from metering.cli import app
from metering.clock import HandClock, SystemClock
from metering.errors import Unauthenticated
from metering.jwts import JwtVerifier
from metering.settings import Settings
from metering.tokens import SCOPES, TokenError, mint, seconds_of
from tests.support.fixtures import store, store_session
from tests.support.issuer import EC, ED, RSA, JwksServer, document
from tests.support.servers import StoreServer, free_port
from tests.support.service import START_S, ServiceProcess, call, clean_environment
from tests.support.wait import wait_until

__all__ = ["store", "store_session"]

SECRET = "s" * 32


class Run:
    """One finished run of the command line in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        environment = clean_environment(**{"DATA_DIR": str(folder / "var"), **settings})
        command = (sys.executable, "-m", "metering.cli", *arguments)
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        self.code, self.output, self.errors = done.returncode, done.stdout, done.stderr
        assert "Traceback" not in self.errors, self.errors


class Called:
    """One command called in this process, which has imported what it needs: a process of its own takes a second."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        output, errors = StringIO(), StringIO()
        environment = clean_environment(**{"DATA_DIR": str(folder / "var"), **settings})
        with chdir(folder), lived_in(environment), redirect_stdout(output), redirect_stderr(errors):
            try:
                app(arguments, prog_name="metering")
            except SystemExit as end:
                self.code = end.code
        self.output, self.errors = output.getvalue(), errors.getvalue()


@contextmanager
def lived_in(environment: dict[str, str]) -> Iterator[None]:
    """This process with another environment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def test_a_token_is_taken_by_the_service_with_the_same_secret(tmp_path: Path) -> None:
    run = Run(tmp_path, "token", "--org", "org-7", "--scope", "check", "--scope", "audit", JWT_SECRET=SECRET)
    verified = await JwtVerifier(SECRET, SystemClock()).verify(run.output.strip())
    assert verified is not None
    assert (verified.caller.org_id, verified.caller.scopes) == ("org-7", frozenset({"check", "audit"}))


def test_a_new_encryption_key_is_one_that_the_settings_take(tmp_path: Path) -> None:
    made = [Called(tmp_path, "encryption", "new-key", "2026-11").output.strip() for _ in range(2)]
    (first, second) = [Settings(encryption_keys=SecretStr(one)).encryption_ring() for one in made]
    assert first[0][0] == second[0][0] == "2026-11"
    assert first != second


def test_the_token_command_prints_nothing_but_the_token(tmp_path: Path) -> None:
    run = Run(tmp_path, "token", "--org", "org-7", "--scope", "admin")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", run.output)
    assert (run.code, run.errors) == (0, "")


async def test_without_a_secret_the_kept_one_of_the_same_folder_signs(tmp_path: Path) -> None:
    token = Called(tmp_path, "token", "--org", "org-7", "--scope", "admin").output.strip()
    kept = (tmp_path / "var" / "jwt-secret").read_text().strip()
    assert await JwtVerifier(kept, SystemClock()).verify(token)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--org", "o", "--scope", "write"), ("no such scope: write", *SCOPES)),
        (("--org", "no org", "--scope", "admin"), ("'no org' cannot name an organisation",)),
        (("--org", "track", "--scope", "admin"), ("'track' cannot name an organisation",)),
        (("--org", "o", "--scope", "admin", "--ttl", "1w"), ("'1w' is no time to live", "1h")),
    ],
)
def test_a_token_that_cannot_be_made_is_refused_with_the_cure(
    tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    run = Called(tmp_path, "token", *arguments)
    assert (run.code, run.output) == (1, "")
    assert all(part in run.errors for part in parts)


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("1s", 1), ("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800), ("366d", 31_622_400)]
)
def test_a_time_to_live_has_a_unit(ttl: str, seconds: int) -> None:
    assert seconds_of(ttl) == seconds


@pytest.mark.parametrize("ttl", ["", "1", "h", "0s", "-1h", "1.5h", "367d", "1h30m", "999999999999h"])
def test_any_other_time_to_live_is_refused(ttl: str) -> None:
    with pytest.raises(TokenError):
        seconds_of(ttl)


async def test_a_token_names_audience_and_issuer_and_ends_on_time() -> None:
    settings = Settings(jwt_secret=SecretStr(SECRET), jwt_audience="metering", jwt_issuer="me")
    clock = HandClock(1_700_000_000_000)
    token = mint(settings, clock, org="org-7", scopes=["admin"], ttl_s=60)
    verifier = JwtVerifier(SECRET, clock, audience="metering", issuer="me")
    assert await verifier.verify(token)
    clock.advance(80_000)
    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify(token)


def test_good_settings_are_shown_with_source_and_without_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=debug\n")
    run = Called(tmp_path, "config", "check", JWT_SECRET="canary-" + SECRET, PORT="9000")
    rows = {line.split()[0]: line.split()[1:3] for line in run.output.splitlines()}
    assert run.code == 0
    assert rows["PORT"] == ["9000", "env"]
    assert rows["LOG_LEVEL"] == ["DEBUG", ".env"]
    assert rows["HOST"] == ["127.0.0.1", "default"]
    assert "canary" not in run.output


def test_bad_settings_are_all_told_and_exit_with_one(tmp_path: Path) -> None:
    run = Run(tmp_path, "config", "check", PORT="http", WORKERS="0", REDIS_UR="x")
    assert run.code == 1
    assert re.findall(r"^error: (\w+)", run.errors, re.MULTILINE) == ["REDIS_UR", "PORT", "WORKERS"]
    assert "Rename it to REDIS_URL" in run.errors


def test_settings_and_their_faults_are_also_told_as_json(tmp_path: Path) -> None:
    settings = json.loads(Called(tmp_path, "config", "check", "--json").output)["settings"]
    port = next(row for row in settings if row["name"] == "PORT")
    assert (port["value"], port["source"]) == ("8005", "default")
    bad = Called(tmp_path, "config", "check", "--json", PORT="http")
    assert bad.code == 1
    assert [fault["name"] for fault in json.loads(bad.output)["faults"]] == ["PORT"]


@pytest.mark.parametrize("command", [("serve",), ("token", "--org", "o", "--scope", "admin"), ("doctor",)])
def test_no_command_runs_on_bad_settings(tmp_path: Path, command: tuple[str, ...]) -> None:
    run = Called(tmp_path, *command, PARTITIONS="63")
    assert run.code == 1
    assert "PARTITIONS" in run.errors


def test_a_good_catalogue_is_called_good(tmp_path: Path) -> None:
    text, _ = Settings().plans_text()
    (tmp_path / "mine.toml").write_text(text)
    run = Called(tmp_path, "plans", "check", "mine.toml")
    assert run.code == 0
    assert "mine.toml is good" in run.output


def test_a_shipped_catalogue_is_printed_to_be_copied(tmp_path: Path) -> None:
    assert Called(tmp_path, "plans", "show", "s2").output.rstrip() == Settings().plans_text()[0].rstrip()
    assert "threatalytics" in Called(tmp_path, "plans", "show").output
    assert "s4 is good" in Called(tmp_path, "plans", "check", "s4").output
    refused = Called(tmp_path, "plans", "show", "nothing")
    assert (refused.code, "no shipped catalogue is called nothing" in refused.errors) == (1, True)


def test_plans_check_shows_what_credits_cost(tmp_path: Path) -> None:
    text, _ = Settings().plans_text()
    sold = text.replace('unit = "scan"', 'unit = "scan"\ncredits = 1', 1)
    for size, price in ((100, 1000), (500, 4500)):
        sold += f"\n[[credit_packages]]\ncredits = {size}\nprice_minor = {price}\n"
    (tmp_path / "mine.toml").write_text(sold, encoding="utf-8")
    lines = Called(tmp_path, "plans", "check", "mine.toml").output.splitlines()
    assert [line.split() for line in lines if line.startswith(("100 ", "500 "))] == [
        ["100", "10.00", "USD", "0.100", "0", "%"],
        ["500", "45.00", "USD", "0.090", "10", "%"],
    ]


def test_every_fault_of_a_bad_catalogue_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("version = 0\nnonsense = 1\n")
    run = Run(tmp_path, "plans", "check", "bad.toml")
    assert run.code == 1
    assert all(f"bad.toml: {key}: " in run.errors for key in ("version", "nonsense", "plans"))


def test_a_catalogue_that_is_not_there_is_told(tmp_path: Path) -> None:
    run = Called(tmp_path, "plans", "check", "none.toml")
    assert run.code == 1
    assert "none.toml cannot be read" in run.errors


def test_the_doctor_says_what_a_start_would_do_where_none_runs(tmp_path: Path) -> None:
    run = Called(tmp_path, "doctor")
    assert run.code == 0
    assert "ok    store: none runs; `metering serve` would start valkey" in run.output


def test_the_doctor_prints_each_failing_line_with_its_cure_and_exits_with_one(
    tmp_path: Path, store: StoreServer
) -> None:
    store.say("CONFIG", "SET", "appendfsync", "everysec")
    run = Called(tmp_path, "doctor", REDIS_URL=store.url, JWT_SECRET="short")
    store.say("CONFIG", "SET", "appendfsync", "always")
    failed = re.findall(r"^FAIL  ([^:]+): .*\n      (.+)$", run.output, re.MULTILINE)
    assert run.code == 1
    assert [name for name, _ in failed] == ["JWT_SECRET", "appendfsync", "maxmemory", "store user"]
    assert re.findall(r"^ok    (scripts|clocks|store|catalogue file): ", run.output, re.MULTILINE)


def test_the_doctor_reads_the_catalogue_as_well(tmp_path: Path) -> None:
    missing = Called(tmp_path, "doctor", PLANS_FILE="none.toml")
    (tmp_path / "bad.toml").write_text("version = 0\n")
    bad = Called(tmp_path, "doctor", PLANS_FILE="bad.toml")
    assert (missing.code, bad.code) == (1, 1)
    assert "FAIL  PLANS_FILE: " in missing.output
    assert "FAIL  catalogue file: bad.toml: version: " in bad.output


def test_the_doctor_reads_the_public_keys_and_asks_for_those_behind_a_url(tmp_path: Path) -> None:
    (tmp_path / "keys.pem").write_text(EC.pem() + RSA.pem() + EC.pem())
    with JwksServer(document(ED.jwk())) as server:
        good = Called(tmp_path, "doctor", JWT_PUBLIC_KEY_FILE="keys.pem", JWT_JWKS_URL=server.url)
        server.publish()
        none = Called(tmp_path, "doctor", JWT_JWKS_URL=server.url)
    (tmp_path / "keys.pem").write_text("nothing")
    bad = Called(tmp_path, "doctor", JWT_PUBLIC_KEY_FILE="keys.pem", JWT_JWKS_URL=server.url)
    assert "ok    JWT_PUBLIC_KEY_FILE: 2 for ES256, 1 for RS256\n" in good.output
    assert "ok    JWT_JWKS_URL: 1 for EdDSA\n" in good.output
    assert "warn  JWT_JWKS_URL: no key that is taken here\n" in none.output
    assert "FAIL  JWT_PUBLIC_KEY_FILE: it holds no whole PEM blocks\n" in bad.output
    assert "warn  JWT_JWKS_URL: " in bad.output
    assert (good.code, none.code, bad.code) == (0, 0, 1)


def test_a_service_with_a_file_that_holds_no_public_keys_does_not_start_and_says_why(
    tmp_path: Path, store: StoreServer
) -> None:
    run = Run(tmp_path, "serve", "--port", "0", REDIS_URL=store.url, DEBUG="true", JWT_PUBLIC_KEY_FILE="none.pem")
    assert run.code == 1
    assert "JWT_PUBLIC_KEY_FILE: none.pem cannot be read" in run.errors


def test_the_doctor_also_speaks_json(tmp_path: Path, store: StoreServer) -> None:
    run = Called(tmp_path, "doctor", "--json", REDIS_URL=store.url, DEBUG="true")
    checks = {check["name"]: check["ok"] for check in json.loads(run.output)["checks"]}
    assert run.code == 0
    assert checks["appendfsync"]
    assert checks["scripts"]
    assert not checks["store user"]


def test_the_doctor_writes_nothing_into_the_store(tmp_path: Path, store: StoreServer) -> None:
    assert Called(tmp_path, "doctor", REDIS_URL=store.url, DEBUG="true").code == 0
    assert store.say("INFO", "keyspace").strip().endswith("# Keyspace")


@pytest.mark.parametrize("external", [False, True])
def test_the_doctor_makes_neither_folder_nor_secret_and_says_who_will(
    tmp_path: Path, store: StoreServer, external: bool
) -> None:
    settings = {"REDIS_URL": store.url, "DEBUG": "true"} if external else {}
    run = Called(tmp_path, "doctor", **settings)
    assert run.code == 0
    assert (
        f"ok    JWT_SECRET: not set; `metering serve` makes one and keeps it in {tmp_path}/var/jwt-secret" in run.output
    )
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_looks_at_the_kept_secret(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "jwt-secret").write_text("short")
    run = Called(tmp_path, "doctor")
    assert run.code == 1
    assert "fewer than 32 bytes" in run.errors


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", Run(tmp_path, "version").output)


def test_health_fails_where_nobody_answers(tmp_path: Path) -> None:
    run = Run(tmp_path, "health", PORT=str(free_port()))
    assert run.code == 1
    assert "is not healthy" in run.errors


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://127.0.0.1:1", "gopher://127.0.0.1"])
def test_health_fails_on_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    assert Run(tmp_path, "health", "--url", url).code == 1


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """The real service on its embedded store."""
    with ServiceProcess() as service:
        wait_until(lambda: "Try it" in service.output(), timeout_s=START_S, what="the welcome is printed")
        yield service


def test_health_succeeds_on_a_running_service(tmp_path: Path, service: ServiceProcess) -> None:
    assert Run(tmp_path, "health", PORT=str(service.port)).code == 0
    assert Run(tmp_path, "health", "--url", service.url).code == 0


def test_health_reads_host_and_port_where_the_service_reads_them(tmp_path: Path, service: ServiceProcess) -> None:
    (tmp_path / ".env").write_text(f"HOST=0.0.0.0\nPORT={service.port}\n")
    assert Run(tmp_path, "health").code == 0
    (tmp_path / ".env").write_text(f"HOST=::1\nPORT={service.port}\n")
    run = Run(tmp_path, "health")
    assert run.code == 1
    assert f"http://[::1]:{service.port} is not healthy" in run.errors
    assert Run(tmp_path, "health", "--url", service.url).code == 0


def test_the_three_printed_lines_work_when_pasted(service: ServiceProcess) -> None:
    lines = re.findall(r"^  (curl .+)$", service.output(), re.MULTILINE)
    answers = [_pasted(line) for line in lines]
    assert [answer["status"] for answer in answers[:1]] == ["healthy"]
    assert (answers[1]["current_usage"], answers[1]["limit"], answers[1]["remaining"]) == (5, 10, 5)
    assert answers[2]["org_id"] == "org-123"


def _pasted(line: str) -> dict[str, object]:
    """What a shell line answers; every curl flag in it has to be one that this reads."""
    words = shlex.split(line)
    assert words[0] == "curl"
    url, options = words[1], dict(zip(words[2::2], words[3::2], strict=True)) if len(words) > 2 else {}
    headers = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
    body = json.loads(options["-d"]) if "-d" in options else None
    assert set(options) <= {"-H", "-d"}
    status, answer = call(url, body, headers=dict(header.split(": ", 1) for header in headers))
    assert status == 200
    assert isinstance(answer, dict)
    return answer


def test_a_token_of_the_same_folder_is_taken_and_another_is_not(tmp_path: Path, service: ServiceProcess) -> None:
    own = Called(tmp_path, "token", "--org", "org-123", "--scope", "usage:read", DATA_DIR=str(service.data_dir))
    other = Called(tmp_path, "token", "--org", "org-123", "--scope", "usage:read")
    assert service.call("/usage/org-999", token=own.output.strip())[0] == 404
    assert service.call("/usage/org-999", token=other.output.strip())[0] == 401


def test_the_doctor_examines_the_running_store(tmp_path: Path, service: ServiceProcess) -> None:
    run = Run(tmp_path, "doctor", DATA_DIR=str(service.data_dir))
    assert run.code == 0
    for line in ("ok    appendfsync: always", "ok    scripts:", "ok    data set: ", "ok    clocks: "):
        assert line in run.output


def test_a_store_in_memory_serves_and_says_that_data_is_lost() -> None:
    with ServiceProcess("--ephemeral", "--workers", "4") as service:
        wait_until(lambda: "Try it" in service.output(), timeout_s=START_S, what="the welcome is printed")
        assert "DATA IS LOST ON EXIT" in service.output()
        event = {"org_id": "org-123", "feature": "scans", "quantity": 5}
        assert service.call("/usage/track", event, token=service.token())[1]["current_usage"] == 5
        assert len(service.workers()) == 1
        assert service.stores() == []
        assert service.terminate() == 0


def test_a_store_that_the_gate_refuses_ends_the_start_with_every_line(store: StoreServer) -> None:
    store.say("CONFIG", "SET", "appendfsync", "everysec")
    settings = {"REDIS_URL": store.url, "JWT_SECRET": SECRET}
    service = ServiceProcess("--workers", "2", settings=settings).start(healthy=False)
    assert service.wait(START_S) == 1
    store.say("CONFIG", "SET", "appendfsync", "always")
    output = service.output()
    assert re.findall(r"^  (\S.*): .*\n    \S", output, re.MULTILINE) == ["appendfsync", "maxmemory", "store user"]
    assert "Traceback" not in output
    service.close()


def test_a_bad_catalogue_ends_the_start_with_every_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("version = 0\n")
    service = ServiceProcess(settings={"PLANS_FILE": str(tmp_path / "bad.toml")}).start(healthy=False)
    assert service.wait(START_S) == 1
    assert "version" in service.output()
    assert "Traceback" not in service.output()
    service.close()


def test_with_show_token_a_service_on_ones_own_store_prints_one(store: StoreServer) -> None:
    settings = {"REDIS_URL": store.url, "JWT_SECRET": SECRET, "DEBUG": "true"}
    with ServiceProcess("--show-token", settings=settings) as service:
        wait_until(lambda: "token   ey" in service.output(), timeout_s=START_S, what="the token is printed")
