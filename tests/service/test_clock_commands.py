"""`metering clock`: time that passes step by step, what it waits for, and where it may not be moved."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from metering.auth import ADMIN
from metering.clock import SystemClock
from metering.clock_tasks import advance, read_clock
from metering.moments import parse_ms
from metering.settings import Settings
from metering.store_access import AccessError
from tests.service.running import SECRET, Running, token
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.service import clean_environment

__all__ = ["store", "store_session"]

DAY_MS: Final = 86_400_000


@pytest.fixture
def service(store: StoreServer) -> Iterator[Running]:
    with Running(store, test_clock=True, tidies=True) as service:
        yield service


def settings_of(service: Running, **more: Any) -> Settings:
    """The settings of a command beside the service."""
    url = SecretStr(service.server_store.url)
    return Settings(redis_url=url, jwt_secret=SecretStr(SECRET), **more)


def pass_by(service: Running, ahead_ms: int, **more: Any) -> list[str]:
    """Let time pass; where the clock stopped on the way."""
    stops: list[str] = []
    asyncio.run(advance(settings_of(service, **more), SystemClock(), ahead_ms, stops.append))
    return stops


def view(service: Running, org: str = "acme") -> dict[str, Any]:
    """The organisation's scans."""
    found: dict[str, Any] = service.call("GET", f"/usage/{org}", token(org)).json()["features"]["scans"]
    return found


def test_time_passes_and_stops_where_a_period_ends(service: Running) -> None:
    service.track(org_id="acme", feature="scans", quantity=5)
    end_ms = parse_ms(view(service)["reset_date"])
    before = asyncio.run(read_clock(settings_of(service)))
    assert before.offset_ms == 0
    stops = [parse_ms(stop) for stop in pass_by(service, 40 * DAY_MS)]
    after = asyncio.run(read_clock(settings_of(service)))
    assert len(stops) in {2, 3}  # the end of this month, perhaps the next one's, and the target
    assert 0 <= stops[0] - end_ms < 60_000
    assert stops == sorted(stops)
    assert 0 <= after.now_ms - (before.now_ms + 40 * DAY_MS) < 60_000
    assert after.offset_ms <= 40 * DAY_MS
    closed = service.call("GET", "/v1/audit?org_id=acme&type=period_closed", token(None, ADMIN)).json()["data"]
    assert len(closed) >= 1
    assert view(service)["current"] == 0


def test_two_walks_are_one(service: Running) -> None:
    pass_by(service, DAY_MS)
    pass_by(service, 2 * DAY_MS)
    reading = asyncio.run(read_clock(settings_of(service)))
    assert 3 * DAY_MS - 60_000 < reading.offset_ms <= 3 * DAY_MS


def test_a_live_key_moves_no_clock(service: Running) -> None:
    with pytest.raises(AccessError, match="real money is billed by real time"):
        pass_by(service, DAY_MS, stripe_secret_key=SecretStr("sk_live_1"))
    assert asyncio.run(read_clock(settings_of(service))).offset_ms == 0


def test_a_data_set_without_a_test_clock_has_no_other_time(store: StoreServer) -> None:
    with Running(store) as service:
        with pytest.raises(AccessError, match="no test clock") as told:
            pass_by(service, DAY_MS)
        assert "TEST_CLOCK=true" in told.value.cure
        with pytest.raises(AccessError, match="no test clock"):
            asyncio.run(read_clock(settings_of(service)))


def test_the_sandbox_decides_where_to_stop_and_does_what_is_due_there(service: Running) -> None:
    start_s = asyncio.run(read_clock(settings_of(service))).now_ms // 1000
    due = [start_s + 3600, start_s + 7200]
    calls: list[str] = []
    stops: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(f"{request.method} {request.path}")
        if request.method == "POST":
            now_ms = SystemClock().now_ms() + int(service.store.get("{p00}:clock") or 0)
            due[:] = [one for one in due if one * 1000 > now_ms]
        return web.json_response({"next_due": due[0] if due else None, "deliveries": 0})

    async def walk() -> None:
        app = web.Application()
        app.router.add_route("*", "/sandbox/{call}", answer)
        async with TestServer(app) as server:
            base = str(server.make_url("/"))
            chosen = settings_of(service, stripe_api_base=base, stripe_secret_key=SecretStr("sk_sandbox_1"))
            await advance(chosen, SystemClock(), 3 * 3_600_000, stops.append)

    asyncio.run(walk())
    assert [round((parse_ms(stop) - start_s * 1000) / 3_600_000) for stop in stops] == [1, 2, 3]
    assert calls.count("POST /sandbox/run") == 4


def test_time_stops_where_a_time_of_grace_ends(service: Running) -> None:
    now_ms = asyncio.run(read_clock(settings_of(service))).now_ms
    service.store.zadd("{p05}:grace", {"acme": now_ms + DAY_MS // 2})
    [first, _] = [parse_ms(stop) - now_ms for stop in pass_by(service, DAY_MS)]
    assert DAY_MS // 2 < first < DAY_MS // 2 + 60_000


@pytest.mark.parametrize(
    ("key", "left"),
    [("{p00}:dirty", "1 counters with overage"), ("{p00}:grace", "1 times of grace that ended")],
)
def test_a_service_that_does_not_keep_up_is_told_with_what_is_left(service: Running, key: str, left: str) -> None:
    service.store.zadd(key, {"acme|scans": 0})
    chosen = settings_of(service, stripe_secret_key=SecretStr("sk_test_1"))
    with pytest.raises(AccessError, match=f"left: {left}") as told:
        asyncio.run(advance(chosen, SystemClock(), DAY_MS, lambda _: None, patience_s=0.5))
    assert "run the command again" in told.value.cure


def metering(service: Running, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command beside the service."""
    environment = clean_environment(REDIS_URL=service.server_store.url, DATA_DIR=str(folder))
    command = (sys.executable, "-m", "metering.cli", "clock", *words)
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_the_commands_show_and_advance(service: Running, tmp_path: Path) -> None:
    assert metering(service, tmp_path, "show").stdout.endswith("Z, 0 s ahead of the machine's clock\n")
    done = metering(service, tmp_path, "advance", "1h", "--json")
    assert 3590 <= json.loads(done.stdout)["ahead_s"] <= 3600, done.stderr
    wrong = metering(service, tmp_path, "advance", "soon")
    assert (wrong.returncode, "no length of time" in wrong.stderr) == (1, True)
