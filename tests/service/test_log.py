"""The log: one line of JSON each, no secrets, nothing a reader could be fooled by."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import pytest
import structlog

from metering import log
from metering.api.guard import visible
from metering.app import secrets_of
from metering.auth import Caller
from metering.clock import HandClock
from metering.errors import OrgNotFound
from metering.log import MASK
from metering.org_marks import HIDDEN, OrgMarks, is_mark, mark_of
from metering.settings import Settings
from tests.service.running import Running, token
from tests.support.servers import StoreServer, free_port
from tests.support.service import ROOT, clean_environment
from tests.support.wait import wait_until


class Lines:
    """What was logged, as text and as JSON."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, line: str) -> None:
        self.text += line

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n")[:-1]]

    @property
    def last(self) -> dict[str, Any]:
        return self.entries[-1]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Everything is logged into this; afterwards the session's own setting is back."""
    seen = Lines()
    log.configure("DEBUG", secrets=["configured-canary"], clock=HandClock(1_700_000_000_123), write=seen.write)
    yield seen
    log.configure("ERROR")


def test_a_line_begins_with_time_level_and_event(lines: Lines) -> None:
    structlog.get_logger().info("started", port=8005)
    assert list(lines.last.items()) == [
        ("timestamp", "2023-11-14T22:13:20.123Z"),
        ("level", "info"),
        ("event", "started"),
        ("port", 8005),
    ]


HOSTILE: Final = {
    "line ends": "a\nb\r\nc\x0bd\x0ce\x85f\u2028g\u2029h",
    "a second entry": 'x"}\n{"level":"info","event":"forged"}',
    "ANSI": "\x1b[2J\x1b[31mred\x9b31m\x07",
    "format strings": "%s %(x)s {} {0.__class__} ${jndi:ldap://x}",
    "bidi": "\u202eevil\u2066\ufeff",
    "NUL": "a\x00b",
    "half a surrogate pair": "a\ud800b",
    "astral": "\U0001f600",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_stays_inside_its_one_line(lines: Lines, text: str) -> None:
    structlog.get_logger().info(text, subject=text, **{text: 1})
    logging.getLogger("uvicorn.error").warning("%s", text)
    assert len(lines.entries) == 2
    assert all(len(part.splitlines()) == 1 for part in lines.text.split("\n")[:-1])
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) <= 0x9F for letter in lines.text.replace("\n", ""))
    assert not set("\u2028\u2029\u202e\u2066\ufeff") & set(lines.text)
    if text.isprintable():
        assert lines.entries[0]["subject"] == text


SHAPES: Final = [
    "Bearer abc.def-ghi",
    "authorization: bearer x.y",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
    "sk_live_51Habc",
    "sk_test_51Habc",
    "rk_live_51Habc",
    "whsec_abc+/=",
    "mk_live_abc",
    "redis://metering:p4ssw0rd@host:6379/2",
    "rediss://:p4ssw0rd@host",
    "https://51abc0def051abc0def051abc0def051@sentry.example/7",
    "configured-canary",
]
REMAINS: Final = ("abc", "def", "x.y", "eyJ", "51H", "51abc", "p4ss", "configured-canary", "c2ln")


@pytest.mark.parametrize("secret", SHAPES)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(lines: Lines, secret: str) -> None:
    told = structlog.get_logger()
    told.info(f"called with {secret}, and more")
    told.info("x", field=f"<{secret}>", deep={"a": [{"b": (secret,)}]}, other=RuntimeError(secret))
    told.error("failed", exc_info=ValueError(secret))
    logging.getLogger("redis").error("lost %s", secret)
    told.info("key", **{secret: 1})
    assert len(lines.entries) == 5
    assert not [part for part in REMAINS if part in lines.text]
    assert lines.text.count(MASK) >= 7


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "JWT_SECRET",
        "authorization",
        "Cookie",
        "api_key",
        "apikey",
        "x-api-key",
        "token",
        "stripe-signature",
    ],
)
def test_what_is_named_as_a_secret_is_masked(lines: Lines, name: str) -> None:
    structlog.get_logger().info("x", **{name: "plain words", "nested": {name: ["plain words"]}})
    assert (lines.last[name], lines.last["nested"]) == (MASK, {name: MASK})


def test_what_is_no_secret_is_left_alone(lines: Lines) -> None:
    fields = {"route": "/usage/{org_id}", "status": 200, "duration_ms": 0.5, "late": True, "none": None, "list": [1]}
    structlog.get_logger().info("request", **fields)
    assert {name: lines.last[name] for name in fields} == fields


@pytest.mark.parametrize("value", [2**70, -(2**70), b"bytes", float("nan"), object, {1: 2}, {"a", "b"}, [[[[[[1]]]]]]])
def test_anything_can_be_logged(lines: Lines, value: object) -> None:
    structlog.get_logger().info("x", value=value)
    assert "value" in lines.last


def test_below_its_level_nothing_is_written() -> None:
    seen = Lines()
    log.configure("WARNING", write=seen.write)
    structlog.get_logger().info("quiet")
    logging.getLogger("uvicorn.error").info("quiet")
    structlog.get_logger().warning("loud")
    log.configure("ERROR")
    assert [entry["event"] for entry in seen.entries] == ["loud"]


def test_the_request_in_hand_is_named(lines: Lines) -> None:
    held = log.request_id.set("req-1")
    structlog.get_logger().info("x")
    logging.getLogger("any").warning("y")
    structlog.get_logger().info("z", request_id="other")
    log.request_id.reset(held)
    structlog.get_logger().info("after")
    assert [entry.get("request_id") for entry in lines.entries] == ["req-1", "req-1", "other", None]


KEY: Final = b"k" * 32


@pytest.mark.parametrize(
    ("shows", "one", "several"),
    [
        ("id", "org-1", ["org-1", "org-2"]),
        ("hash", mark_of("org-1", KEY), [mark_of("org-1", KEY), mark_of("org-2", KEY)]),
        ("none", None, None),
    ],
)
def test_lines_show_of_organisations_what_the_setting_says(shows: str, one: object, several: object) -> None:
    seen, marks = Lines(), OrgMarks(shows)
    marks.learn(KEY)
    log.configure("INFO", write=seen.write, orgs=marks)
    structlog.get_logger().info("x", org="org-1", org_id="org-1", asked="org-1", orgs=["org-1", "org-2"], plan="free")
    log.configure("ERROR")
    assert [seen.last.get(name) for name in ("org", "org_id", "asked", "orgs")] == [one, one, one, several]
    assert seen.last["plan"] == "free"


def test_before_the_secret_is_known_a_mark_is_hidden() -> None:
    assert OrgMarks("hash")("org-1") == HIDDEN


def test_marks_of_two_data_sets_have_nothing_in_common() -> None:
    assert is_mark(mark_of("org-1", KEY))
    assert mark_of("org-1", KEY) != mark_of("org-1", b"j" * 32)
    assert not is_mark("o_123")


def test_a_mark_is_the_same_in_every_release() -> None:
    assert mark_of("acme", b"s" * 32) == "o_89e201beebe5204c"


def test_every_secret_setting_is_known_to_the_log() -> None:
    given = {
        "jwt_secret": "jwt-canary",
        "stripe_secret_key": "sk_live_x",
        "stripe_webhook_secret": "whsec_x,whsec_y",
        "metrics_token": "metrics-canary",
        "redis_url": "redis://u:store%2Dcanary@h",
    }
    settings = Settings.model_validate(given)
    assert {"jwt-canary", "sk_live_x", "whsec_x", "whsec_y", "metrics-canary", "store-canary"} <= set(
        secrets_of(settings)
    )


CANARY: Final = "canary0123456789abcdef"
STORE_CANARY: Final = f"store-{CANARY}"
SECRETS: Final = {
    "JWT_SECRET": f"jwt-{CANARY}-long-enough",
    "STRIPE_SECRET_KEY": f"sk_live_{CANARY}",
    "STRIPE_WEBHOOK_SECRET": f"whsec_{CANARY}",
    "METRICS_TOKEN": f"metrics-{CANARY}",
}
HEADERS: Final = {
    "Cookie": f"session={CANARY}",
    "X-Api-Key": CANARY,
    "Stripe-Signature": f"t=1,v1={CANARY}",
    "Proxy-Authorization": f"Basic {CANARY}",
    "Referer": f"https://x/?token={CANARY}",
    "User-Agent": CANARY,
    "X-Request-Id": f"{CANARY} with spaces",
}


class Uvicorn:
    """The app under plain uvicorn, without the parent process of `metering serve`, with a canary in every secret."""

    def __init__(self, store: StoreServer) -> None:
        self.port = free_port()
        url = f"redis://metering:{STORE_CANARY}@127.0.0.1:{store.port}"
        command = [sys.executable, "-m", "uvicorn", "metering.app:create_app", "--factory", "--port", str(self.port)]
        environment = clean_environment(REDIS_URL=url, DEBUG="true", LOG_LEVEL="debug", **SECRETS)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", headers=HEADERS, timeout=10)

    def healthy(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.client.get("/health").status_code == 200
        except httpx2.TransportError:
            return False

    def end(self) -> str:
        """SIGTERM; everything it printed."""
        self.client.close()
        self.process.terminate()
        return self.process.communicate(timeout=20)[0]


@pytest.fixture(scope="module")
def told() -> tuple[str, str]:
    """All that such a service printed, and all it answered, over a life with every kind of trouble."""
    user = f"user metering on >{STORE_CANARY} ~* &* +@all"
    with StoreServer(tcp=True, settings=(user,)) as store:
        server = Uvicorn(store)
        try:
            wait_until(server.healthy, timeout_s=30, what="the service answers")
            answers = trouble(server, store)
        finally:
            printed = server.end()
    return printed, answers


def trouble(server: Uvicorn, store: StoreServer) -> str:
    """Right and wrong requests, then the store dies; the text of all answers."""
    good = token("org-1", "admin", secret=SECRETS["JWT_SECRET"])
    body = {"org_id": "org-1", "feature": "scans", "metadata": {"card": CANARY}, "event_id": "e-1"}
    texts = []

    def call(method: str, path: str, bearer: str, **sent: Any) -> None:
        response = server.client.request(method, path, headers={"Authorization": f"Bearer {bearer}"}, **sent)
        texts.append(response.text + repr(response.headers))

    for turn in range(2):
        for bearer in (good, f"mk_live_{CANARY}", f"{CANARY}.{CANARY}.{CANARY}"):
            call("POST", "/usage/track", bearer, json=body)
            call("POST", "/usage/track", bearer, json=body | {"quantity": CANARY})
            call("POST", "/usage/track", bearer, content=f'{{"{CANARY}'.encode())
            call("GET", f"/usage/org-1?token={CANARY}", bearer)
            if not turn:
                call("POST", "/billing/update", bearer, json={"org_id": "org-1", "plan": "free"})
            call("GET", f"/{CANARY}", bearer)
            call("GET", "/metrics", bearer)
            call("GET", "/health/ready", bearer)
        store.kill()
    return "".join(texts)


def test_no_secret_is_ever_printed(told: tuple[str, str]) -> None:
    printed, _ = told
    assert CANARY not in printed


def test_no_configured_secret_is_ever_answered(told: tuple[str, str]) -> None:
    _, answers = told
    assert not [value for value in (*SECRETS.values(), STORE_CANARY) if value in answers]
    assert "127.0.0.1" not in answers


def test_under_plain_uvicorn_every_line_is_json(told: tuple[str, str]) -> None:
    printed, _ = told
    entries = [json.loads(line) for line in printed.splitlines()]
    assert all({"timestamp", "level", "event"} <= set(entry) for entry in entries)
    assert {"Application startup complete.", "request", "not ready"} <= {entry["event"] for entry in entries}


def test_every_request_has_one_line_and_counted_events_are_told_quietly(told: tuple[str, str]) -> None:
    printed, _ = told
    lines = [entry for entry in map(json.loads, printed.splitlines()) if entry["event"] == "request"]
    ids = [entry["request_id"] for entry in lines]
    assert len(ids) == len(set(ids))
    tracked = [entry for entry in lines if entry["route"] == "/usage/track"]
    assert len(tracked) == 18
    assert {(entry["status"], entry["level"]) for entry in tracked} == {
        (200, "debug"),
        (422, "info"),
        (400, "info"),
        (401, "info"),
        (503, "warning"),
    }


def test_lines_tell_what_became_of_a_request_and_hold_a_mark_in_place_of_the_organisation(
    told: tuple[str, str],
) -> None:
    printed, _ = told
    lines = [entry for entry in map(json.loads, printed.splitlines()) if entry["event"] == "request"]
    assert {entry["outcome"] for entry in lines if entry["route"] == "/usage/track"} == {
        "recorded", "validation", "malformed-json", "unauthenticated", "storage-unavailable",
    }  # fmt: skip
    marks = {entry["org"] for entry in lines if entry["route"] == "/usage/track" and entry["status"] in {200, 503}}
    assert len(marks) == 1
    assert is_mark(marks.pop())
    assert "org-1" not in printed


def test_paths_and_bodies_are_not_logged(told: tuple[str, str]) -> None:
    printed, _ = told
    assert {entry["route"] for entry in map(json.loads, printed.splitlines()) if entry["event"] == "request"} == {
        "/usage/track",
        "/billing/update",
        "/usage/{org_id}",
        "/metrics",
        "/health",
        "/health/ready",
        "other",
    }
    assert "scans" not in printed


def test_who_asks_for_a_foreign_organisation_is_told(lines: Lines) -> None:
    with pytest.raises(OrgNotFound):
        visible(Caller("spy", "org-1", frozenset()), "org-2")
    assert {name: lines.last[name] for name in ("level", *FOREIGN)} == {"level": "warning", **FOREIGN}


FOREIGN: Final = {"event": "foreign organisation", "subject": "spy", "org_id": "org-1", "asked": "org-2"}


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [("POST", "/usage/track", {"org_id": "org-2", "feature": "scans"}), ("GET", "/usage/org-2", None)],
)
def test_the_line_names_the_request(
    service: Running, lines: Lines, method: str, path: str, sent: dict[str, Any] | None
) -> None:
    response = service.call(method, path, token("org-1", sub="spy"), **({} if sent is None else {"json": sent}))
    (told,) = [entry for entry in lines.entries if entry["event"] == FOREIGN["event"]]
    assert told.items() >= FOREIGN.items()
    assert told["request_id"] == response.headers["x-request-id"]
