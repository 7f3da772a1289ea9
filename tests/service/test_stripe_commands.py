"""`metering stripe`: missed events are read, those given up are shown and tried again, errors have a cure."""

import asyncio
import json
from typing import Any, Final

import pytest
import redis
from typer.testing import CliRunner, Result

from metering.cli import app
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.connect import connect, normalise_url
from metering.store.inbox import Inbox
from metering.store.keys import Keys
from metering.store_access import AccessError
from metering.stripe_tasks import catch_up
from tests.lua.letters import stripe_event
from tests.support.fixtures import store, store_session
from tests.support.raw_entries import PARTITIONS, make_dataset
from tests.support.scripted import Scripted, scripted
from tests.support.servers import StoreServer
from tests.support.stripe_mail import snapshot

__all__ = ["store", "store_session"]

KEYS: Final = Keys(PARTITIONS)


@pytest.fixture
def data(store: StoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """An empty data set, which the environment names; where it is."""
    monkeypatch.chdir(tmp_path)
    url = normalise_url(store.url, database=2)
    with redis.Redis.from_url(url) as client:
        make_dataset(client)
    for name, value in (("REDIS_URL", store.url), ("PARTITIONS", str(PARTITIONS))):
        monkeypatch.setenv(name, value)
    return url


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["stripe", *words])


async def given_up(url: str, *numbers: int) -> None:
    """Events that could not take effect."""
    async with connect(url) as client:
        inbox = Inbox(client, KEYS, bytes(32))
        for number in numbers:
            await inbox.receive(stripe_event(number, "invoice.paid"))
            letter = await inbox.unread(KEYS.event_partition(f"evt_{number}"))
            assert letter is not None
            await inbox.bury(letter, f"why-{number}")


def waiting(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return sum(int(client.xlen(key)) for key in client.scan_iter("*:inbox"))


def test_events_that_were_given_up_are_shown_with_the_reason(data: str) -> None:
    assert run("dead-events", "list").output == "none\n"
    asyncio.run(given_up(data, 1, 2))
    shown = run("dead-events", "list").output.splitlines()
    assert [line.split()[0] for line in shown] == ["EVENT", "evt_1", "evt_2"]
    assert shown[1].endswith("why-1")
    events = json.loads(run("dead-events", "list", "--json").output)["events"]
    assert [(one["id"], one["type"], one["why"]) for one in events] == [
        ("evt_1", "invoice.paid", "why-1"),
        ("evt_2", "invoice.paid", "why-2"),
    ]


def test_they_can_be_tried_again_one_by_one_or_all(data: str) -> None:
    asyncio.run(given_up(data, 1, 2, 3))
    assert run("dead-events", "replay", "evt_2").output == "1 events wait to take effect\n"
    assert waiting(data) == 1
    assert run("dead-events", "replay").output == "2 events wait to take effect\n"
    assert (waiting(data), run("dead-events", "list").output) == (3, "none\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dead-events", "replay", "evt_9"), "not among the dead events: evt_9"),
        (("catch-up",), "there is no key for Stripe"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_cure(data: str, words: tuple[str, ...], told: str) -> None:
    result = run(*words)
    assert (result.exit_code, told in result.stderr) == (1, True)
    assert len(result.stderr.splitlines()) == 2


def test_a_live_key_and_another_address_are_refused(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_" + "live_canary")
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:9")
    result = run("catch-up")
    assert (result.exit_code, "a live key goes to Stripe alone" in result.stderr) == (1, True)


def answer(script: Scripted, *rows: dict[str, Any]) -> None:
    """Answer a list of events, the newest first as Stripe has it."""
    script.answer({"object": "list", "data": list(rows), "has_more": False, "url": "/v1/events"})


async def test_missed_events_are_read_through_stripes_own_client(data: str) -> None:
    async with scripted() as script:
        key = {"stripe_secret_key": "sk_test_0123456789", "stripe_api_base": script.url}
        settings = Settings.load(options=key)
        answer(script, snapshot("evt_2", created=1_790_000_001), snapshot("evt_1", created=1_790_000_000))
        answer(script)
        answer(script)  # no report of a meter
        caught = await catch_up(settings, SystemClock())
        assert (caught.kept, caught.known, waiting(data)) == (2, 0, 2)
        *snapshots, reports = script.requests
        assert [one.form for one in snapshots] == [{"limit": "100"}, {"limit": "100", "ending_before": "evt_2"}]
        assert reports.path == "/v2/core/events"
        answer(script, snapshot("evt_2", created=1_790_000_001))
        answer(script)
        answer(script)
        script.plays = script.plays[-3:]
        caught = await catch_up(settings, SystemClock())
        assert (caught.kept, caught.known, waiting(data)) == (0, 1, 2)
        assert script.requests[3].form["created[gte]"] == str(1_790_000_001 - 3600)


async def test_a_key_that_does_not_hold_is_told(data: str) -> None:
    async with scripted() as script:
        script.refuse(401, message="Invalid API Key provided")
        key = {"stripe_secret_key": "sk_test_0123456789", "stripe_api_base": script.url}
        with pytest.raises(AccessError, match="Invalid API Key"):
            await catch_up(Settings.load(options=key), SystemClock())
