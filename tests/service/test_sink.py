"""The example sink: every raw event in a file of its day, at least once, readable, and what could not be is told."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from metering.clock import HandClock
from metering.sink import DayFiles, Sink, SinkError
from metering.store.connect import connect, normalise_url
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.raw_feed import Feed
from metering.store.raw_names import Names
from metering.usage import UsageEvent
from tests.support.fixtures import store, store_session
from tests.support.raw_entries import PARTITIONS, add, make_dataset
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, clean_environment
from tests.support.wait import await_until, wait_until

__all__ = ["store", "store_session"]

AT_MS = 1_795_635_315_256  # 2026-11-25T19:35:15.256Z
DAY_MS = 86_400_000
KEYS = Keys(PARTITIONS)
DATA_KEY = bytes(range(32))


class Data:
    """A data set with organisations and raw events, made by hand."""

    def __init__(self, url: str) -> None:
        self.url = normalise_url(url, database=2)
        self.store: Any = redis.Redis.from_url(self.url)
        make_dataset(self.store)

    def org(self, org_id: str) -> None:
        """An organisation, as far as a sink looks at one."""
        self.store.hset(KEYS.profile(org_id), "key", FieldCodec().encode(org_id, "key", DATA_KEY.hex()))
        self.store.zadd(KEYS.shared("orgs", KEYS.partition(org_id)), {org_id: 0})

    def add(self, org_id: str, event_id: str, at_ms: int = AT_MS, **more: Any) -> str:
        """A raw event."""
        return add(self.store, UsageEvent(org_id, "scans", 5, event_id, **more), DATA_KEY, at_ms)


@pytest.fixture
def data(store: StoreServer) -> Iterator[Data]:
    """A data set in an empty store."""
    made = Data(store.url)
    yield made
    made.store.close()


def copied(folder: Path) -> list[dict[str, Any]]:
    """Every line of every file."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def command(data: Data, folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "metering.cli", "events", "sink", "--dir", str(folder), *options]


def run(data: Data, folder: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command until there is nothing left."""
    environment = clean_environment(REDIS_URL=data.url, **settings)
    words = command(data, folder, "--once", *options)
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_every_event_is_a_line_in_the_file_of_its_day(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    details = orjson.dumps({"actor": "ann", "metadata": {"chain": "x"}})
    name = data.add("acme", "e1", source="svc", timestamp_ms=AT_MS - 1000, details=details)
    data.add("acme", "e2", at_ms=AT_MS + DAY_MS)
    done = run(data, tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, f"2 events written to {tmp_path / 'out'}\n")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [
        "events-2026-11-25.jsonl", "events-2026-11-26.jsonl",
    ]  # fmt: skip
    first, second = copied(tmp_path / "out")
    assert second["event_id"] == "e2"
    assert first.pop("current_usage") > 0
    assert first == {
        "partition": KEYS.partition("acme"),
        "id": name,
        "at": "2026-11-25T19:35:15.256Z",
        "event_id": "e1",
        "source": "svc",
        "org_id": "acme",
        "feature": "scans",
        "quantity": 5,
        "recorded": 5,
        "overage": 0,
        "actor": "ann",
        "metadata": {"chain": "x"},
        "timestamp": "2026-11-25T19:35:14.256Z",
    }


def test_what_was_copied_is_not_copied_again_but_for_another_group(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.add("acme", "e1")
    assert run(data, tmp_path).stdout.startswith("1 events")
    assert run(data, tmp_path).stdout.startswith("0 events")
    data.add("acme", "e2")
    assert run(data, tmp_path).stdout.startswith("1 events")
    assert run(data, tmp_path, "--group", "other").stdout.startswith("2 events")
    assert [line["event_id"] for line in copied(tmp_path)] == ["e1", "e2", "e1", "e2"]


def test_an_event_of_an_erased_organisation_keeps_its_figures_alone(data: Data, tmp_path: Path) -> None:
    data.add("acme", "e1")
    run(data, tmp_path)
    (line,) = copied(tmp_path)
    assert (line["org_id"], line["event_id"], line["quantity"]) == (None, None, 5)


def test_what_retention_took_unread_is_told(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.add("acme", "e1")
    run(data, tmp_path)
    for number in range(3):
        data.add("acme", f"gone-{number}")
    data.store.xtrim(KEYS.shared("events", KEYS.partition("acme")), maxlen=0, approximate=False)
    data.add("acme", "e2")
    done = run(data, tmp_path)
    (told,) = [json.loads(line) for line in done.stdout.splitlines() if "missed" in line]
    assert (told["level"], told["missed"], told["partition"]) == ("error", 3, KEYS.partition("acme"))
    assert [line["event_id"] for line in copied(tmp_path)] == ["e1", "e2"]


def test_an_entry_of_no_known_shape_holds_up_nobody(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.store.xadd(KEYS.shared("events", KEYS.partition("acme")), {"x": 1})
    data.add("acme", "e1")
    done = run(data, tmp_path)
    assert "no known shape" in done.stdout
    assert [line["event_id"] for line in copied(tmp_path)] == ["e1"]
    assert run(data, tmp_path).stdout == f"0 events written to {tmp_path}\n"


def test_a_torn_last_line_is_cut_before_more_is_written(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.add("acme", "e1")
    run(data, tmp_path)
    path = tmp_path / "events-2026-11-25.jsonl"
    with path.open("a") as file:
        file.write('{"partition":1,"id":"17')
    data.add("acme", "e2")
    run(data, tmp_path)
    assert [line["event_id"] for line in copied(tmp_path)] == ["e1", "e2"]


def test_a_file_that_is_nothing_but_a_torn_line_begins_anew(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    (tmp_path / "events-2026-11-25.jsonl").write_text('{"partition"')
    data.add("acme", "e1")
    run(data, tmp_path)
    assert [line["event_id"] for line in copied(tmp_path)] == ["e1"]


def test_one_folder_has_one_sink(data: Data, tmp_path: Path) -> None:
    lock = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = run(data, tmp_path)
    os.close(lock)
    assert done.returncode == 1
    assert "written by another sink\n  Give each sink a folder." in done.stderr


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_acknowledged(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.add("acme", "e1")
    (tmp_path / "out").write_text("a file")
    assert "cannot be written" in run(data, tmp_path / "out").stderr
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2" / "events-2026-11-25.jsonl").mkdir()
    done = run(data, tmp_path / "out2")
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)
    assert run(data, tmp_path / "out3").stdout.startswith("1 events")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"PARTITIONS": "32"}, "made with 64"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "does not answer"),
        ({"REDIS_URL": "", "DATA_DIR": "nowhere"}, "no store runs in DATA_DIR"),
    ],
    ids=["partitions", "away", "none"],
)
def test_a_store_that_does_not_fit_is_told(data: Data, tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    environment = {**clean_environment(REDIS_URL=data.url), **settings}
    words = command(data, tmp_path, "--once")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_database_without_a_data_set_is_told(store: StoreServer, tmp_path: Path) -> None:
    environment = clean_environment(REDIS_URL=store.url)
    words = [sys.executable, "-m", "metering.cli", "events", "sink", "--dir", str(tmp_path), "--once"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "the store holds no data set" in done.stderr


def test_events_that_were_given_up_are_put_back_by_a_command(data: Data) -> None:
    data.store.xadd("{p01}:dead", {"org": "a", "to": "b", "box": "c", "entry": "1-1", "why": "org-corrupt"})
    words = [sys.executable, "-m", "metering.cli", "events", "retry"]
    environment = clean_environment(REDIS_URL=data.url)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "1 events wait to be counted again\n")
    ((_, fields),) = data.store.xrange("{p01}:queue")
    assert (fields, data.store.xlen("{p01}:dead")) == ({b"org": b"a", b"to": b"b", b"box": b"c"}, 0)


def test_real_events_of_a_running_service_are_copied_out_of_its_own_store(tmp_path: Path) -> None:
    with ServiceProcess(settings={"EVENT_RETENTION": "1h"}) as service:
        sent = {"org_id": "org-123", "feature": "scans", "quantity": 3, "event_id": "e1", "actor": "ann"}
        assert service.call("/usage/track", sent, token=service.token())[0] == 200
        assert service.call("/v1/events?ack=async", [sent | {"event_id": "e2"}], token=service.token())[0] == 202
        words = [sys.executable, "-m", "metering.cli", "events", "sink", "--dir", str(tmp_path)]
        with subprocess.Popen(words, env=service.environment, stdout=subprocess.DEVNULL) as sink:
            wait_until(lambda: len(copied(tmp_path)) == 2, timeout_s=30, what="two lines")
            sink.terminate()
        told = {line["event_id"]: (line["org_id"], line["quantity"], line["actor"]) for line in copied(tmp_path)}
        assert told == {"e1": ("org-123", 3, "ann"), "e2": ("org-123", 3, "ann")}


def test_sigterm_ends_it_with_what_it_did(data: Data, tmp_path: Path) -> None:
    data.org("acme")
    data.add("acme", "e1")
    environment = clean_environment(REDIS_URL=data.url)
    words = command(data, tmp_path)
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as sink:
        wait_until(lambda: len(copied(tmp_path)) == 1, timeout_s=30, what="the first line")
        data.add("acme", "e2")
        wait_until(lambda: len(copied(tmp_path)) == 2, timeout_s=30, what="the second line")
        sink.send_signal(signal.SIGTERM)
        out, _ = sink.communicate(timeout=30)
    assert (sink.returncode, out) == (0, f"2 events written to {tmp_path}\n")


async def test_a_store_that_comes_back_is_read_on(tmp_path: Path) -> None:
    with StoreServer() as server:
        data = Data(server.url)
        data.org("acme")
        data.add("acme", "e1")
        clock = HandClock(0)
        async with connect(data.url) as client:
            names = Names(client, KEYS, FieldCodec(), clock.monotonic)
            with DayFiles(tmp_path) as files:
                sink = Sink(Feed(client, KEYS, "g", "n"), names, files, clock.monotonic)
                running = asyncio.create_task(sink.run())
                await await_until(lambda: len(copied(tmp_path)) == 1, timeout_s=30, what="the first line")
                server.kill()
                server.start()
                data.add("acme", "e2")
                await await_until(lambda: len(copied(tmp_path)) == 2, timeout_s=30, what="the second line")
                sink.end.set()
                await running
        data.store.close()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(SinkError, match="cannot be written"), DayFiles(tmp_path / "x"):
        pass
