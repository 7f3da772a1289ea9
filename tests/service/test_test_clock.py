"""The test clock of a data set: who may have one, and that everything that tells the time follows it."""

import asyncio
from typing import Any, Final

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from metering.clock import SystemClock
from metering.moments import parse_ms
from metering.settings import Settings, StoreKind
from metering.store.connect import connect, normalise_url
from metering.store.gate import GateRefusedError, GateReport, run_gate
from metering.store.keys import Keys
from metering.store.timing import age_minutes, move_test_clock, settled_offset, stored_offset
from tests.service.running import Running, token
from tests.support.fixtures import client, store, store_session
from tests.support.servers import StoreServer
from tests.support.stripe_mail import SECRET, body_of, header, snapshot
from tests.support.wait import wait_until

__all__ = ["client", "store", "store_session"]

KEYS: Final = Keys(64)
DAY_MS: Final = 86_400_000
LIVE: Final = {"stripe_secret_key": SecretStr("sk_live_1")}
RESTRICTED: Final = {"stripe_secret_key": SecretStr("rk_live_1")}
TEST: Final = {"stripe_secret_key": SecretStr("sk_test_1")}


async def gate(client: Redis, **settings: Any) -> GateReport:
    """The gate of a service with these settings."""
    chosen = Settings(jwt_secret=SecretStr("s" * 32), **settings)
    return await run_gate(client, chosen, SystemClock(), kind=StoreKind.EMBEDDED)


@pytest.mark.parametrize(
    ("settings", "offset_ms", "starts"),
    [
        ({}, None, True),
        ({}, 0, True),
        ({}, 1, False),
        ({"test_clock": True}, None, True),
        ({"test_clock": True}, DAY_MS, True),
        ({"test_clock": True, **TEST}, DAY_MS, True),
        (TEST, DAY_MS, False),
        (LIVE, None, True),
        (LIVE, 0, True),
        (LIVE, 1, False),
        ({"test_clock": True, **LIVE}, None, False),
        ({"test_clock": True, **RESTRICTED}, 0, False),
        (RESTRICTED, DAY_MS, False),
    ],
)
async def test_a_clock_that_was_moved_and_a_live_key_never_meet(
    client: Redis, settings: dict[str, Any], offset_ms: int | None, starts: bool
) -> None:
    if offset_ms is not None:
        await move_test_clock(client, KEYS, offset_ms)
        await client.hset("{meta}:dataset", mapping={"schema": 1, "partitions": 64, "id": "a", "secret": "00"})
        await client.hset("{meta}:dataset", "created_ms", 1)
    report = await gate(client, **settings)
    if starts:
        report.admit()
    else:
        with pytest.raises(GateRefusedError, match=r"test clock: .* (TEST_CLOCK|live)"):
            report.admit()
        assert [check.name for check in report.failures] == ["test clock"]


async def test_a_data_set_that_starts_without_a_test_clock_has_none_to_move(client: Redis) -> None:
    assert await settled_offset(client, KEYS, test_clock=True) == 0
    assert await stored_offset(client, KEYS) == 0
    assert len(await client.keys("*:clock")) == KEYS.partitions
    assert await settled_offset(client, KEYS, test_clock=False) is None
    assert await stored_offset(client, KEYS) is None


async def test_the_clock_goes_forward_only_and_stays_where_it_is_at_the_next_start(client: Redis) -> None:
    await move_test_clock(client, KEYS, DAY_MS)
    assert await settled_offset(client, KEYS, test_clock=True) == DAY_MS
    with pytest.raises(ValueError, match="only goes forward"):
        await move_test_clock(client, KEYS, DAY_MS - 1)
    assert await stored_offset(client, KEYS) == DAY_MS


async def test_history_by_minute_ages_with_the_clock_and_nothing_else_does(client: Redis) -> None:
    long, short, other = KEYS.minutes("a", "scans", "2026112500"), KEYS.minutes("b", "scans", "2026112501"), "{p00}:h:a"
    await client.set(long, 1, px=2 * DAY_MS)
    await client.set(short, 1, px=DAY_MS // 2)
    await client.set(other, 1, px=DAY_MS // 2)
    await age_minutes(client, DAY_MS)
    assert await client.keys("*:i:*") == [long.encode()]
    assert DAY_MS - 60_000 < await client.pttl(long) <= DAY_MS
    assert await client.pttl(other) > DAY_MS // 2 - 60_000


def test_everything_that_the_service_tells_follows_a_clock_that_somebody_else_moved(store: StoreServer) -> None:
    with Running(store, test_clock=True) as service:
        service.track(org_id="acme", feature="scans", quantity=5, event_id="before")
        before = service.call("GET", "/usage/acme", token("acme")).json()["features"]["scans"]
        assert before["current"] == 5

        asyncio.run(_move(service, 40 * DAY_MS))

        def reset() -> bool:
            found = service.call("GET", "/usage/acme", token("acme")).json()["features"]["scans"]
            return bool(found["current"] == 0 and parse_ms(found["reset_date"]) > parse_ms(before["reset_date"]))

        wait_until(reset, timeout_s=10, what="the period after 40 days has begun")
        assert service.track(org_id="acme", feature="scans", quantity=2, event_id="after").json()["current_usage"] == 2
        history = service.call("GET", "/usage/acme/history?window=day", token("acme")).json()["data"]
        assert sum(row["value"] for row in history if row["feature"] == "scans") == 2
        assert abs(parse_ms(history[-1]["start"]) - (service_now(service) + 40 * DAY_MS)) <= DAY_MS
        held = {"id": "h", "org_id": "acme", "feature": "scans", "quantity": 1, "ttl_s": 60}
        hold = service.call("POST", "/v1/reservations", token("acme"), json=held).json()
        assert abs(parse_ms(hold["expires_at"]) - (service_now(service) + 40 * DAY_MS)) <= 120_000
        minted = service.track(org_id="acme", feature="scans", quantity=1).json()
        assert minted["current_usage"] == 3


@pytest.mark.parametrize(
    ("key", "ahead_s", "status"),
    [
        ("sk_sandbox_1", 40 * 86_400, 200),
        ("sk_sandbox_1", 0, 200),
        ("sk_sandbox_1", 20 * 86_400, 400),
        ("sk_test_1", 40 * 86_400, 400),
        ("sk_test_1", 0, 200),
    ],
)
def test_a_webhook_is_signed_in_the_time_of_the_data_set_by_the_sandbox_alone(
    store: StoreServer, key: str, ahead_s: int, status: int
) -> None:
    settings: dict[str, Any] = {"stripe_secret_key": key, "stripe_webhook_secret": SECRET}
    with Running(store, test_clock=True, **settings) as service:
        asyncio.run(_move(service, 40 * DAY_MS))
        body = body_of(snapshot())
        answer = service.call("POST", "/webhooks/stripe", content=body, headers=header(body, ahead_s=ahead_s))
        assert answer.status_code == status


def service_now(service: Running) -> int:
    """The store's own time in ms."""
    seconds, micros = service.store.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def _move(service: Running, ahead_ms: int) -> None:
    async with connect(normalise_url(service.server_store.url, database=2)) as client:
        await move_test_clock(client, KEYS, ahead_ms)
