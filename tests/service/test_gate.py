"""The start-up gate: one refused setting a test, each on a real server."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from metering.clock import Clock, HandClock, SystemClock
from metering.settings import JWT_SECRET_DEFAULT, Settings, StoreKind
from metering.store import gate as gate_module
from metering.store.binaries import Binary, binaries
from metering.store.connect import connect, text_of
from metering.store.ephemeral import ephemeral_store
from metering.store.gate import Check, GateRefusedError, GateReport, run_gate
from metering.store.keys import DATASET
from plans.catalogue import Catalogue, parse
from tests.support.fixtures import client, each_store, each_store_session, store, store_session
from tests.support.servers import StoreServer, free_port, speak
from tests.support.service import ROOT
from tests.support.wait import wait_until

__all__ = ["client", "each_store", "each_store_session", "store", "store_session"]

STRONG = SecretStr("s" * 32)
SETTINGS = Settings(jwt_secret=STRONG)


@pytest.fixture(autouse=True)
def as_it_was(store_session: StoreServer) -> Iterator[None]:
    """The session's server keeps no setting that a test changed."""
    before = {name: _configured(store_session, name) for name in _CHANGED}
    yield
    for name, value in before.items():
        assert store_session.say("CONFIG", "SET", name, value or '""').startswith("+OK")


_CHANGED = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy", "maxmemory")


def _configured(server: StoreServer, name: str) -> str:
    return server.say("CONFIG", "GET", name).split("\r\n")[4]


async def _report(
    client: Redis,
    settings: Settings = SETTINGS,
    *,
    kind: StoreKind = StoreKind.EMBEDDED,
    clock: Clock | None = None,
    catalogue: Catalogue | None = None,
    write: bool = True,
) -> GateReport:
    return await run_gate(client, settings, clock or SystemClock(), kind=kind, catalogue=catalogue, write=write)


def _names(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks]


async def test_a_durable_store_of_each_kind_is_admitted(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        report = await _report(client)
    assert report.admit().partitions == 64
    assert (report.failures, report.warnings, report.lossy) == ((), (), False)


@pytest.mark.parametrize("secret", [JWT_SECRET_DEFAULT, "s" * 31, "ü" * 15])
async def test_a_weak_secret_is_refused(client: Redis, secret: str) -> None:
    report = await _report(client, Settings(jwt_secret=SecretStr(secret)))
    assert _names(report.failures) == ["JWT_SECRET"]
    with pytest.raises(GateRefusedError, match="JWT_SECRET"):
        report.admit()


@pytest.mark.parametrize("secret", [JWT_SECRET_DEFAULT, "s" * 31])
async def test_a_weak_secret_passes_under_debug_with_a_word(client: Redis, secret: str) -> None:
    report = await _report(client, Settings(jwt_secret=SecretStr(secret), debug=True))
    assert _names(report.warnings) == ["JWT_SECRET"]
    assert report.admit()


async def test_a_secret_as_long_as_its_hash_is_strong(client: Redis) -> None:
    assert (await _report(client, Settings(jwt_secret=SecretStr("s" * 32)))).admit()


async def test_no_secret_is_needed_where_public_keys_check_the_tokens(client: Redis) -> None:
    report = await _report(client, Settings(jwt_jwks_url="https://id.example/keys"))
    assert report.admit()
    assert next(check.found for check in report.checks if check.name == "JWT_SECRET").startswith("not set")


@pytest.mark.parametrize("secret", [JWT_SECRET_DEFAULT, "s" * 31])
async def test_a_weak_secret_is_refused_beside_public_keys_too(client: Redis, secret: str) -> None:
    report = await _report(client, Settings(jwt_jwks_url="https://id.example/keys", jwt_secret=SecretStr(secret)))
    assert _names(report.failures) == ["JWT_SECRET"]


async def test_no_check_shows_the_secret(client: Redis) -> None:
    report = await _report(client, Settings(jwt_secret=SecretStr("canary-7f3a")))
    assert "canary" not in repr(report)


def test_a_missing_http_parser_is_refused() -> None:
    check = gate_module.parser_check("a_parser_that_nobody_has")
    assert (check.ok, check.fatal, check.found) == (False, True, "missing")


async def test_the_http_parser_is_looked_for(client: Redis) -> None:
    assert "httptools" in _names((await _report(client)).checks)


async def test_a_store_that_does_not_answer_is_refused_with_the_cure() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        report = await _report(client, kind=StoreKind.EXTERNAL)
    assert _names(report.failures) == ["store"]
    assert "REDIS_URL" in report.failures[0].cure


async def test_a_store_that_asks_for_a_password_is_refused(store: StoreServer) -> None:
    async with connect(store.url.replace("unix://", "unix://user:wrong@")) as client:
        assert _names((await _report(client, kind=StoreKind.EXTERNAL)).failures) == ["store"]


@pytest.mark.parametrize(
    ("info", "ok", "found"),
    [
        ({"redis_version": "6.2.14"}, False, "redis 6.2.14"),
        ({"redis_version": "7.0.0"}, True, "redis 7.0.0"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, True, "valkey 9.1.2"),
        ({"redis_version": "10.0.1"}, True, "redis 10.0.1"),
        ({}, False, "redis 0.0"),
    ],
)
def test_the_version_is_the_servers_own(info: dict[str, str], ok: bool, found: str) -> None:
    check = gate_module.version_check(info)
    assert (check.ok, check.found) == (ok, found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
async def test_a_store_that_can_lose_usage_is_refused(store: StoreServer, client: Redis, name: str, value: str) -> None:
    store.say("CONFIG", "SET", name, value)
    report = await _report(client)
    assert _names(report.failures) == [name]
    assert report.failures[0].found == value
    assert f"CONFIG SET {name}" in report.failures[0].cure


def _start_lines(text: str) -> list[tuple[list[str], str]]:
    """Each start line of `text`: the flags as a shell splits them, and the REDIS_URL that goes with it."""
    found = re.findall(r"redis-server (--.*?info\b).*?REDIS_URL=(\S+[^\s`])", text.replace("\\\n", ""), re.DOTALL)
    return [(shlex.split(flags), url) for flags, url in found]


@contextmanager
def _started(binary: Binary, flags: list[str], folder: Path) -> Iterator[int]:
    """A real server with these flags, on a free loopback port and in a folder of its own; gives the port."""
    port = free_port()
    place = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--logfile", str(folder / "log"))
    launch = (sys.executable, "-m", "metering.store.launch", str(os.getpid()), str(binary.path))
    process = subprocess.Popen([*launch, *flags, *place])
    try:
        wait_until(lambda: speak(("127.0.0.1", port), "PING"), timeout_s=10, what=f"{binary.name} answers")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("binary", binaries(), ids=lambda binary: binary.name)
@pytest.mark.parametrize("printed", ["the message", "the documentation"])
async def test_the_line_that_cures_a_lossy_store_starts_one_that_passes_without_a_word(
    store: StoreServer, client: Redis, tmp_path: Path, binary: Binary, printed: str
) -> None:
    store.say("CONFIG", "SET", "appendonly", "no")
    store.say("CONFIG", "SET", "appendfsync", "everysec")
    with pytest.raises(GateRefusedError) as refusal:
        (await _report(client)).admit()
    documentation = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    ((flags, url),) = _start_lines(str(refusal.value) if printed == "the message" else documentation)
    with _started(binary, flags, tmp_path) as port:
        async with connect(url.replace(":6379", f":{port}")) as named:
            report = await _report(named, kind=StoreKind.EXTERNAL)
            scripts = await gate_module.scripts_check(named)
    assert report.admit()
    assert (report.warnings, report.lossy, scripts.ok) == ((), False, True)


async def test_a_lossy_store_passes_when_that_is_asked_for_and_is_called_so(store: StoreServer, client: Redis) -> None:
    store.say("CONFIG", "SET", "appendfsync", "everysec")
    report = await _report(client, Settings(jwt_secret=STRONG, allow_lossy_ledger=True))
    assert report.admit()
    assert (report.lossy, _names(report.warnings)) == (True, ["appendfsync"])


async def test_a_durable_store_is_not_called_lossy_for_being_allowed_to(client: Redis) -> None:
    assert not (await _report(client, Settings(jwt_secret=STRONG, allow_lossy_ledger=True))).lossy


async def test_debug_does_not_let_a_lossy_store_pass(store: StoreServer, client: Redis) -> None:
    store.say("CONFIG", "SET", "appendfsync", "everysec")
    assert _names((await _report(client, Settings(jwt_secret=STRONG, debug=True))).failures) == ["appendfsync"]


@pytest.fixture
async def barred(store: StoreServer) -> AsyncIterator[Redis]:
    """A user of its own who may not read the store's configuration."""
    store.say("ACL", "SETUSER", "metering", "on", ">pw", "~{*", "+@all", "-@admin", "-@dangerous", "+info")
    async with connect(store.url.replace("unix://", "unix://metering:pw@")) as client:
        yield client
    store.say("ACL", "DELUSER", "metering")


async def test_a_configuration_that_may_not_be_read_is_refused(barred: Redis) -> None:
    report = await _report(barred, kind=StoreKind.EXTERNAL)
    assert _names(report.failures) == ["durability"]
    assert "STORE_DURABILITY=attested" in report.failures[0].cure


async def test_the_operator_may_vouch_for_a_store_that_does_not_tell(barred: Redis) -> None:
    settings = Settings(jwt_secret=STRONG, store_durability="attested")
    report = await _report(barred, settings, kind=StoreKind.EXTERNAL)
    assert report.admit()
    assert not report.lossy


async def test_vouching_does_not_help_a_store_that_tells_it_is_lossy(store: StoreServer, client: Redis) -> None:
    store.say("CONFIG", "SET", "appendfsync", "no")
    settings = Settings(jwt_secret=STRONG, store_durability="attested")
    assert _names((await _report(client, settings)).failures) == ["appendfsync"]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, ["durability"]),
        ({"maxmemory-policy": "noeviction"}, ["durability"]),
        ({"appendonly": "no"}, ["appendonly", "durability"]),
    ],
)
def test_what_a_store_half_tells_has_to_be_vouched_for_as_well(config: dict[str, str], names: list[str]) -> None:
    checks = gate_module.durability_checks(config, SETTINGS)
    assert [check.name for check in checks if not check.ok] == names
    vouched = gate_module.durability_checks(config, Settings(store_durability="attested"))
    assert [check.name for check in vouched if not check.ok] == names[:-1]


async def test_an_external_store_needs_a_memory_limit_and_a_user_of_its_own(client: Redis) -> None:
    report = await _report(client, kind=StoreKind.EXTERNAL)
    assert _names(report.failures) == ["maxmemory", "store user"]


async def test_debug_lets_a_plain_local_store_pass_with_a_word(client: Redis) -> None:
    report = await _report(client, Settings(jwt_secret=STRONG, debug=True), kind=StoreKind.EXTERNAL)
    assert report.admit()
    assert _names(report.warnings) == ["maxmemory", "store user"]


async def test_the_user_of_the_shipped_compose_file_passes_the_gate(store: StoreServer) -> None:
    rules = ("~{*", "+@all", "-@admin", "-@dangerous", "+config|get", "+info")
    store.say("ACL", "SETUSER", "metering", "on", ">pw", *rules)
    store.say("CONFIG", "SET", "maxmemory", "512mb")
    async with connect(store.url.replace("unix://", "unix://metering:pw@")) as client:
        report = await _report(client, kind=StoreKind.EXTERNAL)
    store.say("ACL", "DELUSER", "metering")
    assert report.admit()
    assert report.warnings == ()


@pytest.mark.parametrize(("ahead_ms", "refused"), [(-61_000, True), (-55_000, False), (55_000, False), (61_000, True)])
async def test_clocks_further_apart_than_a_minute_are_refused(client: Redis, ahead_ms: int, refused: bool) -> None:
    clock = HandClock(SystemClock().now_ms() + ahead_ms)
    assert _names((await _report(client, clock=clock)).failures) == (["clocks"] if refused else [])


async def test_the_data_set_is_made_once_and_found_again(client: Redis) -> None:
    first, second = (await _report(client)).admit(), (await _report(client)).admit()
    assert first == second
    assert len(first.secret) == 32
    assert abs(first.created_ms - SystemClock().now_ms()) < 60_000


async def test_the_marker_holds_these_fields(client: Redis) -> None:
    dataset = (await _report(client)).admit()
    marker = {text_of(name): text_of(value) for name, value in (await client.hgetall("{meta}:dataset")).items()}
    created = marker.pop("created_ms")
    assert created.isdigit()
    assert marker == {"schema": "1", "partitions": "64", "id": dataset.id, "secret": dataset.secret.hex()}


async def test_services_that_start_together_agree_on_one_data_set(store: StoreServer) -> None:
    clients = [connect(store.url) for _ in range(8)]
    reports = await asyncio.gather(*(_report(client) for client in clients))
    await asyncio.gather(*(client.aclose() for client in clients))
    assert len({(report.admit().id, report.admit().secret) for report in reports}) == 1


class LateComer:
    """A client that looks for the marker a moment before somebody else makes it."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._looked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def hgetall(self, key: str) -> Mapping[Any, Any]:
        first, self._looked = not self._looked, True
        return {} if first else await self._client.hgetall(key)


async def test_who_comes_late_takes_the_data_set_that_somebody_made_meanwhile(client: Redis) -> None:
    first = (await _report(client)).admit()
    late = cast("Redis", LateComer(client))
    assert (await _report(late)).admit() == first


async def test_other_partitions_than_the_data_sets_are_refused_with_the_right_number(client: Redis) -> None:
    (await _report(client)).admit()
    report = await _report(client, Settings(jwt_secret=STRONG, partitions=128))
    assert _names(report.failures) == ["partitions"]
    assert "PARTITIONS=64" in report.failures[0].cure


async def test_the_data_sets_secret_is_not_shown(client: Redis) -> None:
    dataset = (await _report(client)).admit()
    assert dataset.secret.hex() not in repr(dataset)
    assert repr(dataset.secret) not in repr(dataset)


async def test_a_data_set_of_a_newer_service_is_refused(client: Redis) -> None:
    (await _report(client)).admit()
    await client.hset(DATASET, "schema", "2")
    assert _names((await _report(client)).failures) == ["data set"]


@pytest.mark.parametrize(("field", "value"), [("secret", "zz"), ("partitions", "many"), ("created_ms", "")])
async def test_a_damaged_marker_is_refused(client: Redis, field: str, value: str) -> None:
    (await _report(client)).admit()
    await client.hset(DATASET, field, value)
    (failure,) = (await _report(client)).failures
    assert "damaged" in failure.found


async def test_usage_without_a_marker_is_refused(client: Redis) -> None:
    await client.set("{p1a}:o:org-1", 1)
    (failure,) = (await _report(client)).failures
    assert "no marker" in failure.found
    assert not await client.exists(DATASET)


async def test_keys_of_somebody_else_are_no_usage(client: Redis) -> None:
    await client.set("session:1", 1)
    assert (await _report(client)).admit()


async def test_a_refused_store_is_not_written_to(store: StoreServer, client: Redis) -> None:
    store.say("CONFIG", "SET", "appendfsync", "no")
    report = await _report(client)
    assert report.dataset is None
    assert not await client.exists(DATASET)


async def test_looking_without_writing_makes_no_data_set(client: Redis) -> None:
    report = await _report(client, write=False)
    assert report.failures == ()
    assert report.dataset is None
    assert not await client.exists(DATASET)


def _catalogue(*, limit: int = 10, version: int = 1) -> Catalogue:
    return parse(
        f'version = {version}\ncurrency = "usd"\ndefault_plan = "free"\ndefault_feature = "scans"\n'
        '[features.scans]\ntitle = "Scans"\nunit = "scan"\n'
        f'[plans.free]\ntitle = "Free"\nreset = "calendar"\non_limit = "block"\nprice_minor = 0\n'
        f"[plans.free.features]\nscans = {{ limit = {limit} }}\n",
        "test.toml",
    )


async def test_another_catalogue_under_the_same_version_is_refused(client: Redis) -> None:
    (await _report(client, catalogue=_catalogue(limit=10))).admit()
    report = await _report(client, catalogue=_catalogue(limit=11))
    assert _names(report.failures) == ["catalogue"]
    assert "version" in report.failures[0].cure


async def test_a_changed_catalogue_under_a_new_version_is_taken(client: Redis) -> None:
    for limit, version in ((10, 1), (11, 2), (10, 1)):
        assert (await _report(client, catalogue=_catalogue(limit=limit, version=version))).admit()


async def test_looking_without_writing_notes_no_catalogue(client: Redis) -> None:
    (await _report(client)).admit()
    await _report(client, catalogue=_catalogue(), write=False)
    assert not await client.hexists(DATASET, "catalogue:1")


async def test_an_ephemeral_store_is_admitted_and_called_lossy() -> None:
    with ephemeral_store() as url:
        async with connect(url) as client:
            report = await _report(client, kind=StoreKind.EPHEMERAL)
    assert report.admit()
    assert report.lossy
    assert "lost" in report.warnings[0].found


async def test_every_refusal_is_told_at_once_with_its_cure(store: StoreServer, client: Redis) -> None:
    store.say("CONFIG", "SET", "appendfsync", "no")
    report = await _report(client, Settings(), kind=StoreKind.EXTERNAL)
    with pytest.raises(GateRefusedError) as refusal:
        report.admit()
    for name in ("JWT_SECRET", "appendfsync", "maxmemory", "store user"):
        assert f"- {name}: " in str(refusal.value)
    assert all(check.cure for check in report.failures)


async def test_the_store_takes_every_script(client: Redis) -> None:
    assert (await gate_module.scripts_check(client)).ok


async def test_a_user_that_may_not_load_scripts_is_told(store: StoreServer) -> None:
    store.say("ACL", "SETUSER", "metering", "on", ">pw", "~{*", "+@all", "-@scripting", "-acl")
    async with connect(store.url.replace("unix://", "unix://metering:pw@")) as client:
        check = await gate_module.scripts_check(client)
        report = await _report(client, Settings(jwt_secret=STRONG, debug=True), kind=StoreKind.EXTERNAL)
    store.say("ACL", "DELUSER", "metering")
    assert (check.ok, check.fatal) == (False, True)
    assert _names(report.warnings) == ["maxmemory"]
