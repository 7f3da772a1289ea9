"""What the sandbox keeps."""

import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from metering.billing.sandbox.__main__ import parsed
from metering.billing.sandbox.db import Db
from tests.support.wait import await_until


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_objects_come_back_in_the_order_in_which_they_were_first_put() -> None:
    db = Db()
    for name in ("a", "b", "c"):
        db.put("letter", {"id": name})
    db.put("letter", {"id": "a", "seen": True})
    assert [row["id"] for row in db.all("letter")] == ["a", "b", "c"]
    assert [row["id"] for row in db.all("letter", newest_first=True)] == ["c", "b", "a"]
    assert db.get("letter", "a") == {"id": "a", "seen": True}
    db.delete("letter", "a")
    assert (db.get("letter", "a"), db.get("number", "b")) == (None, None)


def test_those_of_a_parent_are_found_by_time() -> None:
    db = Db()
    for at in (5, 6, 7):
        db.put("x", {"id": f"x{at}"}, parent="p", at=at)
    db.put("x", {"id": "other"}, parent="q", at=6)
    assert [row["id"] for row in db.of("x", "p", start=5, end=7)] == ["x5", "x6"]


def test_a_transaction_is_kept_whole_or_not_at_all() -> None:
    db = Db()

    def breaks() -> None:
        with db.transaction():
            db.put("x", {"id": "a"})
            with db.transaction():
                db.put("x", {"id": "b"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert db.all("x") == []
    with db.transaction():
        db.put("x", {"id": "c"})
    assert db.all("x") == [{"id": "c"}]


def test_what_is_old_is_forgotten() -> None:
    db = Db()
    for at in (1, 2, 3):
        db.put("x", {"id": f"x{at}"}, at=at)
    db.forget("x", before=3)
    assert [row["id"] for row in db.all("x")] == ["x3"]


def test_a_file_keeps_it(tmp_path: Path) -> None:
    first = Db(tmp_path / "sandbox.sqlite")
    first.put("x", {"id": "a"})
    first.close()
    again = Db(tmp_path / "sandbox.sqlite")
    assert again.all("x") == [{"id": "a"}]
    again.close()


def test_the_command_knows_its_options() -> None:
    told = parsed(["--port", "1", "--file", "a.sqlite", "--clock-redis-url", "redis://x", "--rate-per-s", "25"])
    assert (told.port, told.file, told.clock_redis_url, told.rate_per_s) == (1, Path("a.sqlite"), "redis://x", 25)


async def test_by_itself_it_survives_a_kill_and_forgets_nothing_that_it_answered(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.sqlite"
    command = [sys.executable, "-m", "metering.billing.sandbox", "--file", str(file), "--port"]
    headers = {"Authorization": "Bearer sk_test_1"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def names(url: str) -> list[str] | None:
            try:
                async with http.get(f"{url}/v1/products") as answer:
                    return [row["name"] for row in (await answer.json())["data"]]
            except aiohttp.ClientError:
                return None

        async def up(url: str) -> bool:
            return await names(url) is not None

        for known in ([], ["a"]):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            with subprocess.Popen([*command, str(port)]) as process:
                try:
                    await await_until(partial(up, url), timeout_s=20, what="the sandbox answers")
                    assert await names(url) == known
                    async with http.post(f"{url}/v1/products", data={"name": "a"}) as answer:
                        assert answer.status == 200
                finally:
                    process.kill()
