"""Figures that outlive their worker: files in a shared folder, and the folder itself."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from metering.figures import Figures, FiguresError, Row, shared_folder
from tests.support.service import ROOT, gone
from tests.support.wait import wait_until

ROWS: Final = (Row("a", 2), Row("b", 1))


def files(folder: Path) -> int:
    return len(list(folder.glob("*.figures")))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sums_are_over_all_workers_of_the_folder(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as one, Figures(tmp_path, ROWS) as two:
        one.cells[0] += 3
        two.cells[0] += 4
        two.cells[2] += 5
        assert one.sums() == two.sums() == {Row("a", 2): [7, 0], Row("b", 1): [5]}


def test_a_new_worker_goes_on_where_one_ended(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as first:
        held = first.cells  # whoever still holds them does not hold the file
        held[1] += 3
    with Figures(tmp_path, ROWS) as second:
        second.cells[1] += 1
        assert second.sums()[Row("a", 2)] == [0, 4]
    assert files(tmp_path) == 1
    del held


def test_a_file_in_use_is_never_taken_over(tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(Figures(tmp_path, ROWS)) for _ in range(5)]
        for number, worker in enumerate(workers):
            worker.cells[0] = 10**number
        assert workers[0].sums()[Row("a", 2)] == [11111, 0]


def test_what_is_counted_after_the_end_is_seen_by_nobody(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as ended:
        ended.cells[0] += 3
    with Figures(tmp_path, ROWS) as running:
        ended.cells[0] += 100
        assert running.sums()[Row("a", 2)] == [3, 0]


def test_workers_of_two_versions_add_up_what_they_share(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as old, Figures(tmp_path, (Row("new", 3), Row("b", 1))) as new:
        old.cells[0], old.cells[2] = 1, 2
        new.cells[0], new.cells[3] = 3, 4
        assert old.sums() == new.sums() == {Row("a", 2): [1, 0], Row("b", 1): [6], Row("new", 3): [3, 0, 0]}


def test_a_file_of_another_version_is_not_taken_over(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as old:
        old.cells[2] = 7
    with Figures(tmp_path, (Row("b", 1), Row("a", 2))) as new:
        assert new.sums() == {Row("a", 2): [0, 0], Row("b", 1): [7]}
        assert files(tmp_path) == 2


@pytest.mark.parametrize("number", [2**62, -1, 2**40 + 1])
def test_a_cell_holds_64_bits(tmp_path: Path, number: int) -> None:
    with Figures(tmp_path, ROWS) as figures:
        figures.cells[2] = number
        assert figures.sums()[Row("b", 1)] == [number]


WORKER: Final = """
import sys
from pathlib import Path
from metering.figures import Figures, Row
figures = Figures(Path(sys.argv[1]), (Row("a", 2), Row("b", 1)))
while True:
    figures.cells[0] += 1
    figures.cells[1] += 1
"""


@contextmanager
def worker(folder: Path) -> Iterator[int]:
    """A process that counts as fast as it can until it is killed; its id."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], cwd=ROOT)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def counted_until_killed(folder: Path, watcher: Figures) -> list[int]:
    """Watch a worker count, kill it in the middle, and give the last sums seen while it lived."""
    seen = watcher.sums()[ROWS[0]]
    enough = seen[0] + 1000
    with worker(folder) as pid:
        wait_until(lambda: watcher.sums()[ROWS[0]][0] > enough, timeout_s=20, what="the worker counts")
        for _ in range(50):
            before, seen = seen, watcher.sums()[ROWS[0]]
            assert seen >= before
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid), timeout_s=10, what="the worker is dead")
    return seen


def test_killed_workers_take_nothing_with_them_and_leave_their_files_to_others(tmp_path: Path) -> None:
    with Figures(tmp_path, ROWS) as watcher:
        for _ in range(3):
            seen = counted_until_killed(tmp_path, watcher)
            assert watcher.sums()[ROWS[0]] >= seen
        assert files(tmp_path) == 2


@pytest.mark.parametrize("what", ["a file stands there", "a file stands in its way"])
def test_a_folder_that_cannot_be_used_is_told_with_its_cure(tmp_path: Path, what: str) -> None:
    (tmp_path / "x").write_text("")
    folder = tmp_path / "x" if what == "a file stands there" else tmp_path / "x" / "y"
    with pytest.raises(FiguresError, match="cannot hold the figures") as refusal:
        Figures(folder, ROWS)
    assert "METRICS_DIR" in refusal.value.cure


# ── the folder where none is named ───────────────────────────────────────────────────────────────────────


def counted_in_a_worker(base: Path) -> Path:
    """Count as a worker does that another process started."""
    with shared_folder(base) as folder, Figures(folder, ROWS) as figures:
        figures.cells[0] += 1
        return folder


def test_workers_of_one_parent_share_a_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with shared_folder(tmp_path) as own, Figures(own, ROWS) as figures:
        with ProcessPoolExecutor(2, mp_context=spawn) as pool:
            folders = {*pool.map(counted_in_a_worker, [tmp_path] * 4)}
        assert folders == {own}  # the parent of those workers is this process
        assert figures.sums()[ROWS[0]] == [4, 0]


def test_the_folder_goes_with_the_last_who_is_in_it(tmp_path: Path) -> None:
    with shared_folder(tmp_path) as one:
        with shared_folder(tmp_path) as two:
            assert one == two
        assert one.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def _folder_of(base: Path, pid: int) -> Path:
    folder = base / f"usage-metering-{os.getuid()}-{pid}"
    folder.mkdir(mode=0o700)
    (folder / "x.figures").touch()
    return folder


@pytest.fixture
def dead_pid() -> int:
    """The id of a process that has just ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_folders_of_killed_services_are_swept_away(tmp_path: Path, dead_pid: int) -> None:
    stale, running = _folder_of(tmp_path, dead_pid), _folder_of(tmp_path, os.getppid())
    with shared_folder(tmp_path):
        assert (stale.exists(), running.exists()) == (False, True)


def test_a_folder_that_a_worker_is_still_in_is_not_swept_away(tmp_path: Path, dead_pid: int) -> None:
    stale = _folder_of(tmp_path, dead_pid)
    holder = os.open(stale, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)
    with shared_folder(tmp_path):
        assert stale.exists()
    os.close(holder)


@pytest.mark.parametrize("what", ["open to others", "a link", "a file"])
def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path: Path, what: str) -> None:
    place = tmp_path / f"usage-metering-{os.getuid()}-{os.getpid()}"
    if what == "open to others":
        place.mkdir()
        place.chmod(0o755)
    elif what == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.touch()
    with pytest.raises(FiguresError, match="not private"), shared_folder(tmp_path):
        pass


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(FiguresError, match="cannot hold the figures"), shared_folder(tmp_path / "x"):
        pass
