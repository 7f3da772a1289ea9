"""The parent process: what it starts, what it keeps alive, and that nothing outlives it."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from metering.store.folder import Folder, Running
from tests.support.servers import free_port, speak
from tests.support.service import END_S, START_S, TINY, ServiceProcess, gone
from tests.support.wait import wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with _tiny(tmp_path) as service:
        yield service


def _tiny(data_dir: Path, *options: str, **settings: str) -> ServiceProcess:
    return ServiceProcess(*options, data_dir=data_dir, entry=TINY, ready="/pid", settings=settings)


def _count(service: ServiceProcess) -> int:
    return int(service.call("/count")[1])


def _until_gone(pids: list[int]) -> None:
    assert pids
    try:
        wait_until(lambda: all(map(gone, pids)), timeout_s=END_S, what=f"processes {pids} end")
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # a test that fails leaves nothing behind either


def test_a_killed_parent_leaves_neither_store_nor_worker(service: ServiceProcess) -> None:
    family = service.stores() + service.workers()
    service.kill()
    assert len(family) == 2
    _until_gone(family)


def test_a_service_killed_all_at_once_leaves_nothing_and_finds_its_data_again(service: ServiceProcess) -> None:
    assert _count(service) == 1
    family = service.stores() + service.workers()
    service.kill_everything()
    _until_gone(family)
    service.start()
    assert _count(service) == 2


def test_a_second_start_finds_what_was_acknowledged_before_a_kill(service: ServiceProcess) -> None:
    assert _count(service) == 1
    service.kill()
    service.start()
    assert _count(service) == 2


def test_sigterm_ends_with_zero_and_leaves_nothing_behind(service: ServiceProcess) -> None:
    family = service.stores() + service.workers()
    assert service.terminate() == 0
    assert all(map(gone, family))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGHUP])
def test_it_also_ends_cleanly_on(service: ServiceProcess, sign: signal.Signals) -> None:
    os.kill(service.pid, sign)
    assert service.wait() == 0


def test_after_a_clean_end_the_folder_holds_no_socket_and_no_note(service: ServiceProcess) -> None:
    folder = Folder(service.data_dir)
    assert Running.read(folder) is not None
    service.terminate()
    assert not folder.socket().exists()
    assert not folder.record.exists()
    assert list((service.data_dir / "metrics").iterdir()) == []


def test_a_killed_store_is_started_again_on_the_same_socket(service: ServiceProcess) -> None:
    assert _count(service) == 1
    (store,) = service.stores()
    os.kill(store, signal.SIGKILL)
    wait_until(lambda: service.stores() not in ([], [store]), timeout_s=START_S, what="another store runs")
    wait_until(lambda: _counts(service), timeout_s=START_S, what="the service counts again")
    assert _count(service) > 2
    assert "starting it again" in service.output()


def _counts(service: ServiceProcess) -> bool:
    status, answer = service.call("/count")
    return status == 200 and int(answer) > 1


def test_a_killed_worker_is_replaced(service: ServiceProcess) -> None:
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: service.workers() not in ([], [worker]), timeout_s=START_S, what="another worker runs")
    wait_until(lambda: _answers(service), timeout_s=START_S, what="the service answers again")


def _answers(service: ServiceProcess) -> bool:
    try:
        return service.call("/pid")[0] == 200
    except OSError:
        return False


def test_a_worker_leaves_what_lives_as_long_as_itself_out_of_collections(service: ServiceProcess) -> None:
    """Modules and models are tens of thousands of objects; walking them stops the loop for tens of milliseconds."""
    assert int(service.call("/settled")[1]) > 10_000


def test_two_workers_share_one_address(tmp_path: Path) -> None:
    with _tiny(tmp_path, "--workers", "2") as service:
        wait_until(lambda: len(_answering(service)) == 2, timeout_s=START_S, what="both workers answer")


def _answering(service: ServiceProcess) -> set[int]:
    return {int(service.call("/pid")[1]) for _ in range(20)}


def test_a_half_sent_request_does_not_hold_the_end_past_fifteen_seconds(service: ServiceProcess) -> None:
    with _half_sent(service):
        assert service.terminate() == 0
    assert "the app was closed" in service.output()


def test_a_request_in_flight_is_finished_before_the_end(service: ServiceProcess) -> None:
    with _half_sent(service) as line:
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: _refused(service), timeout_s=END_S, what="new connections are refused")
        line.sendall(b"56789")
        assert line.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert service.wait() == 0


def test_ctrl_c_in_a_terminal_reaches_the_parent_alone(service: ServiceProcess) -> None:
    with _half_sent(service) as line:
        os.killpg(service.pid, signal.SIGINT)
        wait_until(lambda: _refused(service), timeout_s=END_S, what="new connections are refused")
        line.sendall(b"56789")
        assert line.recv(4096).startswith(b"HTTP/1.1 200 OK")
        assert service.wait() == 0


def _half_sent(service: ServiceProcess) -> socket.socket:
    """A connection on which half a request was sent, and taken in by the worker (it answered 100-continue)."""
    line = socket.create_connection(("127.0.0.1", service.port), timeout=END_S)
    head = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    line.sendall(head)
    assert line.recv(4096).startswith(b"HTTP/1.1 100")
    line.sendall(b"01234")
    return line


def _refused(service: ServiceProcess) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_second_signal_ends_it_at_once(service: ServiceProcess) -> None:
    family = service.stores() + service.workers()
    with _half_sent(service):
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: "stopping" in service.output(), timeout_s=END_S, what="it stops")
        os.kill(service.pid, signal.SIGTERM)
        assert service.wait(timeout_s=5) == 128 + signal.SIGTERM
    _until_gone(family)


def test_a_second_service_waits_for_the_folder_and_then_takes_it(service: ServiceProcess) -> None:
    assert _count(service) == 1
    second = _tiny(service.data_dir)
    try:
        second.start(healthy=False)
        wait_until(lambda: "waiting" in second.output(), timeout_s=START_S, what="the second one waits")
        assert f"process id {service.pid}" in second.output()
        service.kill()
        wait_until(lambda: _answers(second), timeout_s=START_S, what="the second one serves")
        assert _count(second) == 2
    finally:
        second.close()


def test_the_store_holds_the_lock_of_the_folder(service: ServiceProcess) -> None:
    locks = Path("/proc/locks").read_text()
    inode = (service.data_dir / "lock").stat().st_ino
    files = Path(f"/proc/{service.stores()[0]}/fd").iterdir()
    held = [file for file in files if file.exists() and file.stat().st_ino == inode]
    assert re.search(rf"FLOCK .*:{inode} ", locks)
    assert held


def test_the_embedded_store_has_no_tcp_port_and_writes_through(service: ServiceProcess) -> None:
    folder = Folder(service.data_dir)
    wanted = {"port": "0", "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
    for name, value in wanted.items():
        answer = speak(str(folder.socket()), "CONFIG", "GET", name)
        assert answer.split("\r\n")[4] == value


def test_only_this_user_may_enter_the_folder_of_the_store(service: ServiceProcess) -> None:
    assert (service.data_dir / "store").stat().st_mode & 0o777 == 0o700
    assert (service.data_dir / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_a_long_name_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with _tiny(deep, XDG_RUNTIME_DIR=str(tmp_path)) as service:
        assert _count(service) == 1


def test_an_address_in_use_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = ServiceProcess(data_dir=tmp_path, port=port).start(healthy=False)
        assert other.wait(START_S) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in other.output()
        assert "Traceback" not in other.output()
        other.close()


def test_a_port_that_is_let_go_of_soon_is_waited_for(tmp_path: Path) -> None:
    """As a child holds it for a moment that was starting when its parent was killed."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        service = ServiceProcess(data_dir=tmp_path, port=port, entry=TINY, ready="/pid").start(healthy=False)
        wait_until(lambda: "is taken; waiting" in service.output(), timeout_s=START_S, what="the service waits")
    wait_until(service.answers, timeout_s=START_S, what="the service answers on the port")
    service.close()


def test_a_worker_that_does_not_start_ends_the_service(tmp_path: Path) -> None:
    service = _tiny(tmp_path, TINY_REFUSES="1").start(healthy=False)
    assert service.wait(START_S) != 0
    service.close()


def test_workers_are_told_the_store_the_secret_and_the_address(service: ServiceProcess) -> None:
    told = {name: service.call(f"/environment/{name}")[1] for name in ("STORE_KIND", "HOST", "PORT", "JWT_SECRET")}
    assert told["STORE_KIND"] == "embedded"
    assert (told["HOST"], str(told["PORT"])) == ("127.0.0.1", str(service.port))
    assert told["JWT_SECRET"] == (service.data_dir / "jwt-secret").read_text().strip()


def test_workers_share_a_fresh_private_folder_for_figures(service: ServiceProcess) -> None:
    folder = Path(service.call("/environment/METRICS_DIR")[1])
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    service.kill()
    service.start()
    assert not folder.exists()


def test_it_prints_what_it_chose(service: ServiceProcess) -> None:
    wait_until(lambda: "Try it" in service.output(), timeout_s=START_S, what="the welcome is printed")
    output = service.output()
    for part in (service.url, str(service.data_dir), "embedded", "token   ey"):
        assert part in output


def test_with_a_store_of_ones_own_no_token_is_printed(tmp_path: Path) -> None:
    with _tiny(tmp_path / "a") as store, _external(tmp_path / "b", store) as service:
        command_in = re.compile(r"\$\((.* token .*?)\)")
        asked = wait_until(lambda: command_in.findall(service.output()), timeout_s=START_S, what="the welcome")
        assert "eyJ" not in service.output()
        command = ["/bin/sh", "-c", asked[0]]
        made = subprocess.run(command, env=service.environment, capture_output=True, text=True, check=False)
        assert re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]+\n", made.stdout)
        assert service.stores() == []
        assert _count(service) == 1


def _external(data_dir: Path, owner: ServiceProcess) -> ServiceProcess:
    return _tiny(data_dir, REDIS_URL=f"unix://{owner.data_dir}/store/store.sock", JWT_SECRET="x" * 32)
