"""Raw events live: over HTTP for administrators, and on the command line."""

import json
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count as count_up
from typing import Any, Final

import httpx2
import pytest
from typer.testing import CliRunner

from metering.api.live_events import QUIET_S, _parts
from metering.auth import ADMIN
from metering.cli import app
from metering.store.keys import Keys
from metering.store.tail import POLL_S, TAILS_MAX, Seen
from tests.service.running import Running, problem, token
from tests.support.service import ServiceProcess
from tests.support.wait import wait_until

ROOT: Final = token(None, ADMIN, sub="root")
PATH: Final = "/v1/admin/events"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running(event_retention="1d") as running:
        yield running


class Watching:
    """A stream that is read in a thread: `lines` so far, `ended` when it is over."""

    def __init__(self, url: object, bearer: str, **query: Any) -> None:
        self.lines: list[str] = []
        self.kind = ""
        self.failed: Exception | None = None
        self._url, self._query = str(url), query
        self._headers = {"Authorization": f"Bearer {bearer}"}
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: bool(self.lines), timeout_s=10, what="the stream begins")

    def _read(self) -> None:
        try:
            self._lines()
        except httpx2.TransportError as error:
            self.failed = error

    def _lines(self) -> None:
        with (
            httpx2.Client(base_url=self._url, timeout=30) as client,
            client.stream("GET", PATH, headers=self._headers, params=self._query) as answer,
        ):
            self.kind = answer.headers["content-type"]
            for line in answer.iter_lines():
                self.lines.append(line)
                if self._left.is_set():
                    return

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line.removeprefix("data: ")) for line in self.lines if "{" in line]

    def leave(self) -> None:
        """Stop reading at the next line."""
        self._left.set()

    def ended(self) -> bool:
        return not self._thread.is_alive()


def neighbour(org: str) -> str:
    """Another organisation whose events lie in the same log."""
    partition = Keys(64).partition
    return next(name for n in count_up() if partition(name := f"{org}-{n}") == partition(org))


def count(service: Running, org: str, event_id: str, **more: Any) -> None:
    response = service.track(**{"org_id": org, "feature": "scans", "event_id": event_id} | more)
    assert response.status_code == 200, response.text


def test_events_are_shown_as_they_are_counted_and_others_are_not(service: Running, org: str) -> None:
    count(service, org, "e-0", feature="wallet_checks")
    watching = Watching(service.client.base_url, ROOT, org_id=org, feature="scans", for_s=30)
    count(service, org, "e-1", quantity=3)
    count(service, neighbour(org), "e-x")
    count(service, org, "e-y", feature="wallet_checks")
    count(service, org, "e-2")
    wait_until(lambda: len(watching.events()) == 2, timeout_s=10, what="two events")
    first, second = watching.events()
    assert (first["event_id"], second["event_id"], first["quantity"], first["org_id"]) == ("e-1", "e-2", 3, org)
    assert watching.kind == "application/x-ndjson"
    page = service.call("GET", "/v1/events", ROOT, params={"org_id": org, "feature": "scans"}).json()["data"]
    assert page == [second, first]
    watching.leave()
    count(service, org, "e-3")
    wait_until(watching.ended, timeout_s=10, what="the stream is left")


def test_what_was_counted_lately_of_all_organisations_and_then_the_end(service: Running, org: str) -> None:
    count(service, org, "e-1")
    count(service, f"{org}-b", "e-2")
    text = service.call("GET", PATH, ROOT, params={"since_s": 600, "for_s": 0}).text
    found = [json.loads(line) for line in text.splitlines() if line]
    assert [one["org_id"] for one in found if one["org_id"].startswith(org)] == [org, f"{org}-b"]
    assert [one["id"] for one in found] == sorted(one["id"] for one in found)


def test_an_event_source_gets_server_sent_events(service: Running, org: str) -> None:
    count(service, org, "e-1")
    headers = {"Accept": "text/event-stream"}
    answer = service.call("GET", PATH, ROOT, headers=headers, params={"org_id": org, "since_s": 60, "for_s": 0})
    assert answer.headers["content-type"] == "text/event-stream"
    start, event, rest = answer.text.split("\n\n")
    name, data = event.splitlines()
    shown = json.loads(data.removeprefix("data: "))
    assert (start, name, shown["event_id"], rest) == (":", f"id: {shown['id']}", "e-1", "")


@pytest.mark.parametrize(("server_sent", "nothing"), [(False, b"\n"), (True, b":\n\n")])
async def test_where_nothing_is_counted_something_is_said_now_and_then(server_sent: bool, nothing: bytes) -> None:
    async def quiet(looks: int) -> AsyncIterator[list[Seen]]:
        for _ in range(looks):
            yield []

    a_while = int(QUIET_S / POLL_S)
    said = [part async for part in _parts(quiet(2 * a_while + 1), server_sent=server_sent)]
    assert said[0] == nothing
    assert [n for n, part in enumerate(said[1:], 1) if part] == [a_while, 2 * a_while]
    assert set(said) == {nothing, b""}


def test_head_has_no_stream(service: Running) -> None:
    assert service.call("HEAD", PATH, ROOT).status_code == 200


def test_a_worker_has_so_many_streams_and_gives_their_places_back(service: Running) -> None:
    watching = [Watching(service.client.base_url, ROOT, for_s=60) for _ in range(TAILS_MAX)]
    answer = service.call("GET", PATH, ROOT, params={"for_s": 0})
    problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "30"
    for one in watching:
        one.leave()
    count(service, "org-bounds", secrets.token_hex(4))
    wait_until(lambda: all(one.ended() for one in watching), timeout_s=10, what="nobody reads any more")

    def free() -> bool:
        count(service, "org-bounds", secrets.token_hex(4))  # who has left is noticed when something is sent
        return service.call("GET", PATH, ROOT, params={"for_s": 0}).status_code == 200

    wait_until(free, timeout_s=10, what="a place is free")


def test_without_raw_events_there_is_nothing_to_watch(org: str) -> None:
    with Running() as plain:
        problem(plain.call("GET", PATH, ROOT, params={"for_s": 0}), 409, "events-not-kept")


def test_the_command_line_shows_the_same(service: Running, org: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count(service, org, "e-1", quantity=12, actor="ann")
    count(service, f"{org}-b", "e-2")

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["tail", "--once", "--since", "1h", *words])

    assert "EVENT_RETENTION" in run().stderr
    monkeypatch.setenv("REDIS_URL", service.server_store.url)
    monkeypatch.setenv("EVENT_RETENTION", "1d")
    [line] = run("--org", org).output.splitlines()
    assert line.split("  ")[1:] == [org, "scans", "+12", "= 12", "e-1", "overage 2", "actor ann"]
    everybody = [json.loads(one)["org_id"] for one in run("--feature", "scans", "--json").output.splitlines()]
    assert {org, f"{org}-b"} <= set(everybody)
    count(service, org, "e-3", feature="wallet_checks", quantity=120, mode="cap")
    [line] = run("--feature", "wallet_checks", "--org", org).output.splitlines()
    assert line.split("  ")[3:] == ["+100 of 120", "= 100", "e-3"]
    assert run("--feature", "api_requests", "--org", org).output == ""
    assert "no organisation org-nobody" in run("--org", "org-nobody").stderr
    assert run("--since", "soon").exit_code == 2


def test_a_service_that_is_told_to_end_ends_its_streams_whole() -> None:
    with ServiceProcess(settings={"EVENT_RETENTION": "1d"}) as process:
        watching = Watching(process.url, process.token(), for_s=600)
        process.call("/usage/track", {"org_id": "org-1", "feature": "scans"}, token=process.token())
        wait_until(lambda: bool(watching.events()), timeout_s=10, what="an event")
        process.terminate()
        wait_until(watching.ended, timeout_s=10, what="the stream ends")
        assert watching.failed is None
        assert "Exception" not in process.output()
