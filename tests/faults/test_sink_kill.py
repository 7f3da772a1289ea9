"""kill -9 of a sink while it copies: every raw event is in its files at least once, and every line is whole."""

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import redis

from metering.store.connect import normalise_url
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.usage import UsageEvent
from tests.support.raw_entries import PARTITIONS, fields_of, make_dataset
from tests.support.servers import StoreServer
from tests.support.service import clean_environment
from tests.support.soak import often
from tests.support.wait import wait_until

EVENTS: Final = often(12_000, 3)
ORGS: Final = 20
KILLS: Final = 4
KEYS: Final = Keys(PARTITIONS)
AT_MS: Final = 1_795_635_315_256


def fill(url: str) -> set[tuple[int, str]]:
    """A data set with so many raw events over all partitions; their partitions and names."""
    with redis.Redis.from_url(url) as store:
        make_dataset(store)
        names = set()
        for number in range(ORGS):
            org_id, key = f"org-{number}", secrets.token_bytes(32)
            partition = KEYS.partition(org_id)
            store.hset(KEYS.profile(org_id), "key", FieldCodec().encode(org_id, "key", key.hex()))
            store.zadd(KEYS.shared("orgs", partition), {org_id: 0})
            pipe = store.pipeline(transaction=False)
            for n in range(EVENTS // ORGS):
                event = UsageEvent(org_id, "scans", 1, f"evt-{number}-{n}", details=b'{"actor":"ann","metadata":null}')
                pipe.xadd(KEYS.shared("events", partition), fields_of(event, key, AT_MS))
            names |= {(partition, name.decode()) for name in pipe.execute()}
        return names


def started(url: str, folder: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "metering.cli", "events", "sink", "--dir", str(folder)]
    return subprocess.Popen(words, env=clean_environment(REDIS_URL=url), stdout=subprocess.DEVNULL)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def test_a_sink_killed_again_and_again_loses_no_event(store: StoreServer, tmp_path: Path) -> None:
    url = normalise_url(store.url, database=2)
    names = fill(url)
    assert len(names) == EVENTS
    for _ in range(KILLS):
        before = size(tmp_path)
        sink = started(url, tmp_path)
        wait_until(lambda: size(tmp_path) > before, timeout_s=60, what="more is written")  # noqa: B023
        sink.kill()
        sink.wait()
    last = started(url, tmp_path)
    wait_until(lambda: len(seen(tmp_path)) == EVENTS, timeout_s=60, what="everything is written")
    last.terminate()
    assert last.wait(timeout=30) == 0
    assert seen(tmp_path) == names
    with redis.Redis.from_url(url) as client:
        pending: list[Any] = [client.xpending(KEYS.shared("events", n), "sink") for n in range(PARTITIONS)]
        assert sum(one["pending"] for one in pending) == 0


def seen(folder: Path) -> set[tuple[int, str]]:
    """Partition and name of each whole line; what is still being written has no line end."""
    found = set()
    for path in folder.glob("*.jsonl"):
        for text in path.read_text().splitlines(keepends=True):
            if text.endswith("\n"):
                line = json.loads(text)
                found.add((line["partition"], line["id"]))
    return found
