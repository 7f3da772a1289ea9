"""Looking back over HTTP: what history shows adds up to the counters, and questions that cannot be are told."""

import csv
import io
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from metering.auth import ADMIN, USAGE_READ
from metering.store.frames import day_text
from metering.store.keys import Keys
from plans.windows import HOUR_MS
from tests.house.repo import ROOT
from tests.service.running import Running, problem, token

KEYS: Final = Keys(64)
DAY_MS: Final = 24 * HOUR_MS
ZONES: Final = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Pacific/Chatham")
SHIPPED: Final = (ROOT / "plans/catalogs/scorpius.toml").read_text()
DECLARED: Final = SHIPPED.replace("[features.scans]", "[dimensions]\nactor = 100\nchain = 5\n\n[features.scans]", 1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that keeps minutes and declares two dimensions."""
    plans: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    plans.write_text(DECLARED)
    with Running(plans_file=plans, minute_history_hours=48) as running:
        yield running


def ask(service: Running, org: str, **params: Any) -> httpx2.Response:
    return service.call("GET", f"/usage/{org}/history", token(org), params=params)


def walk(service: Running, org: str, **params: Any) -> list[dict[str, Any]]:
    """Every row of every page."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        response = ask(service, org, **params, **({"cursor": cursor} if cursor else {}))
        assert response.status_code == 200, response.text
        rows += response.json()["data"]
        cursor = response.json()["next_cursor"]
        if cursor is None:
            return rows


def sums(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        found[row["feature"]][0] += row["value"]
        found[row["feature"]][1] += row["overage"] or 0
    return {feature: (units, overage) for feature, (units, overage) in found.items()}


def counters(service: Running, org: str) -> dict[str, tuple[int, int]]:
    features = service.call("GET", f"/usage/{org}", token(org)).json()["features"]
    return {name: (one["current"], one["overage"]) for name, one in features.items() if one["current"]}


def now_ms() -> int:
    return int(time.time() * 1000)


def iso(at_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).isoformat()


def put(service: Running, org: str, at_ms: int, units: int, *, overage: int = 0, feature: str = "scans") -> None:
    """Units of an earlier time, written as the script writes them."""
    key = KEYS.history(org, feature, day_text(at_ms // DAY_MS))
    bucket = f"{at_ms // HOUR_MS % 24:02d}"
    service.store.hincrby(key, bucket, units)
    service.store.hincrby(key, f"x{bucket}", overage)


@pytest.fixture
def used(service: Running, org: str) -> str:
    """An organisation whose period began inside this hour, with usage of two features and overage of one."""
    admin = token(None, ADMIN)
    assert (
        service.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "free", "reset": "anniversary"}).status_code == 201
    )
    for quantity in (3, 9, 1):
        assert service.track(org_id=org, feature="scans", quantity=quantity).status_code == 200
    assert service.track(org_id=org, feature="api_requests", quantity=7).status_code == 200
    return org


@pytest.mark.parametrize("window", ["hour", "day", "month"])
@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("limit", [1, 500])
def test_history_adds_up_to_the_counters(service: Running, used: str, window: str, tz: str, limit: int) -> None:
    rows = walk(service, used, window=window, tz=tz, limit=limit)
    assert sums(rows) == counters(service, used) == {"scans": (13, 3), "api_requests": (7, 0)}


def test_a_period_that_began_inside_an_hour_leaves_out_what_was_before(service: Running, used: str) -> None:
    """The hour holds usage of two periods, each in a field of its own."""
    start = service.call("GET", f"/usage/{used}", token(used)).json()["period"]["start"]
    start_ms = round(datetime.fromisoformat(start).timestamp() * 1000)
    put(service, used, start_ms // HOUR_MS * HOUR_MS, 100)
    assert sums(walk(service, used, window="hour")) == counters(service, used)
    before = walk(service, used, window="hour", to=start, **{"from": iso(start_ms // HOUR_MS * HOUR_MS)})
    assert sums(before) == {"scans": (100, 0)}


def test_rows_say_what_they_cover(service: Running, used: str) -> None:
    answer = ask(service, used, window="day", tz="Europe/Paris", feature="scans").json()
    period = service.call("GET", f"/usage/{used}", token(used)).json()["period"]
    assert {name: answer[name] for name in ("org_id", "window", "tz", "from", "to", "aligned", "next_cursor")} == {
        "org_id": used, "window": "day", "tz": "Europe/Paris", "from": period["start"], "to": period["end"],
        "aligned": True, "next_cursor": None,
    }  # fmt: skip
    (row,) = answer["data"]
    assert row["start"] == period["start"]
    assert (row["feature"], row["group"], row["value"], row["overage"]) == ("scans", {}, 13, 3)


def test_the_path_without_a_name_is_the_tokens_organisation(service: Running, used: str) -> None:
    own = service.call("GET", "/usage/history", token(used), params={"window": "month"})
    assert own.json() == ask(service, used, window="month").json()
    body = service.call("POST", "/v1/usage/query", token(used), json={"window": "month"})
    assert body.json() == own.json()


def test_empty_windows_are_left_out_unless_they_are_asked_for(service: Running, used: str) -> None:
    start_ms = now_ms() // DAY_MS * DAY_MS - 3 * DAY_MS
    span = {"from": iso(start_ms), "to": iso(start_ms + 4 * DAY_MS), "feature": "scans", "tz": "UTC"}
    assert [row["value"] for row in walk(service, used, **span)] == [13]
    for limit in (1, 500):
        rows = walk(service, used, fill="true", limit=limit, **span)
        assert [row["value"] for row in rows] == [0, 0, 0, 13]


def test_days_have_23_and_25_hours_where_clocks_change(service: Running, used: str) -> None:
    year = datetime.now(UTC).year - 1
    last = [max(d for d in range(25, 32) if datetime(year, month, d, tzinfo=UTC).weekday() == 6) for month in (3, 10)]
    spring, autumn = f"{year}-03-{last[0]}", f"{year}-10-{last[1]}"
    for text in (f"{spring}T12:00:00+02:00", f"{autumn}T12:00:00+01:00"):
        put(service, used, round(datetime.fromisoformat(text).timestamp() * 1000), 1)
    span = {"from": f"{year}-03-01T00:00:00+01:00", "to": f"{year}-12-01T00:00:00+01:00", "tz": "Europe/Paris"}
    rows = walk(service, used, feature="scans", **span)
    hours = [datetime.fromisoformat(row["end"]) - datetime.fromisoformat(row["start"]) for row in rows]
    assert hours == [timedelta(hours=23), timedelta(hours=25)]
    months = walk(service, used, window="month", feature="scans", **span)
    assert [row["value"] for row in months] == [1, 1]


def test_half_hour_zones_are_exact_in_sum_and_say_what_they_are_not(service: Running, used: str) -> None:
    start_ms = now_ms() // DAY_MS * DAY_MS - DAY_MS
    put(service, used, start_ms, 5)
    span = {"from": iso(start_ms - HOUR_MS), "to": iso(start_ms + DAY_MS), "window": "hour"}
    for tz, aligned in (("Asia/Kolkata", False), ("Asia/Kathmandu", False), ("Europe/Paris", True)):
        answer = ask(service, used, tz=tz, **span).json()
        assert (sums(answer["data"]), answer["aligned"]) == ({"scans": (5, 0)}, aligned)


def groups(rows: list[dict[str, Any]], token: str) -> dict[str | None, int]:
    found: dict[str | None, int] = defaultdict(int)
    for row in rows:
        assert set(row["group"]) == {token}
        assert row["overage"] is None
        found[row["group"][token]] += row["value"]
    return dict(found)


@pytest.fixture
def grouped(kept: Running, org: str) -> str:
    """An organisation with usage by two actors, and some by nobody; all but that on one chain."""
    for quantity, actor in ((2, "ann"), (1, "=bob"), (2, "=bob"), (5, None)):
        more: dict[str, Any] = (
            {} if actor is None else {"actor": actor, "metadata": {"chain": "eth", "contract": "0x1"}}
        )
        assert kept.track(org_id=org, feature="scans", quantity=quantity, **more).status_code == 200
    return org


@pytest.mark.parametrize("limit", [1, 500])
@pytest.mark.parametrize("window", ["hour", "day", "month"])
def test_groups_and_their_rest_add_up_to_the_counter(kept: Running, grouped: str, limit: int, window: str) -> None:
    rows = walk(kept, grouped, group_by="actor", window=window, limit=limit)
    assert groups(rows, "actor") == {"ann": 2, "=bob": 3, None: 5}
    chains = walk(kept, grouped, group_by="feature,metadata.chain", window=window, limit=limit)
    assert groups(chains, "metadata.chain") == {"eth": 5, None: 5}
    assert sums(rows) == {feature: (units, 0) for feature, (units, _) in counters(kept, grouped).items()}


def test_values_beyond_a_dimensions_room_are_other(kept: Running, org: str) -> None:
    for number in range(8):
        assert kept.track(org_id=org, feature="scans", metadata={"chain": f"chain-{number}"}).status_code == 200
    found = groups(walk(kept, org, group_by="metadata.chain"), "metadata.chain")
    assert found["other"] == 3
    assert sum(found.values()) == 8


def test_one_value_can_be_filtered(kept: Running, grouped: str) -> None:
    assert groups(walk(kept, grouped, actor="ann"), "actor") == {"ann": 2}
    assert groups(walk(kept, grouped, **{"metadata.chain": "eth"}), "metadata.chain") == {"eth": 5}
    assert walk(kept, grouped, actor="carl") == []
    body = {"org_id": grouped, "filter": {"metadata.chain": "eth"}}
    answer = kept.call("POST", "/v1/usage/query", token(grouped), json=body).json()
    assert groups(answer["data"], "metadata.chain") == {"eth": 5}


def test_a_filled_walk_has_a_row_for_every_window_also_when_grouped(kept: Running, grouped: str) -> None:
    start_ms = now_ms() // DAY_MS * DAY_MS - DAY_MS
    span = {"from": iso(start_ms), "to": iso(start_ms + 2 * DAY_MS), "feature": "scans", "tz": "UTC", "fill": "true"}
    rows = walk(kept, grouped, actor="carl", **span)
    assert [(row["group"], row["value"]) for row in rows] == [({"actor": "carl"}, 0)] * 2


def cells(response: httpx2.Response) -> list[list[str]]:
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(response.text, newline=""), strict=True))


def test_csv_is_the_same_walk_as_a_file(kept: Running, grouped: str) -> None:
    rows, path = [], f"/usage/{grouped}/history?group_by=actor&format=csv&limit=1&fill=false&actor="
    path = path.removesuffix("&actor=")
    while path:
        response = kept.call("GET", path, token(grouped))
        assert response.headers["content-disposition"] == f'attachment; filename="usage-{grouped}.csv"'
        assert response.headers["x-aligned"] == "true"
        head, *found = cells(response)
        assert head == ["start", "end", "feature", "actor", "value", "overage"]
        rows += found
        path = response.links["next"]["url"] if "next" in response.links else ""
        assert bool(path) == ("x-next-cursor" in response.headers)
    assert [row[2:] for row in rows] == [
        ["scans", "'=bob", "3", ""], ["scans", "ann", "2", ""], ["scans", "", "5", ""],
    ]  # fmt: skip


def test_csv_keeps_numbers_below_zero_and_filters_on_its_way(kept: Running, org: str) -> None:
    at_ms = now_ms() // DAY_MS * DAY_MS - DAY_MS
    kept.track(org_id=org, feature="scans")
    put(kept, org, at_ms, -4)
    put(kept, org, at_ms + DAY_MS // 2, 1)
    span = {"from": iso(at_ms), "to": iso(at_ms + DAY_MS), "feature": "scans"}
    response = ask(kept, org, format="csv", window="hour", limit=1, tz="UTC", **span)
    assert [row[3:] for row in cells(response)[1:]] == [["-4", "0"]]
    following = kept.call("GET", response.links["next"]["url"], token(org))
    assert [row[3:] for row in cells(following)[1:]] == [["1", "0"]]
    filtered = ask(kept, org, format="csv", limit=1, **span, **{"metadata.chain": "eth", "fill": "true"})
    assert cells(filtered)[0] == ["start", "end", "feature", "metadata.chain", "value", "overage"]
    asked = {"format": "csv", "limit": 1, "from": span["from"], "to": span["to"], "window": "hour", "tz": "UTC"}
    body = kept.call("POST", "/v1/usage/query", token(org), json={"org_id": org, "features": ["scans"], **asked})
    assert "link" not in body.headers
    assert body.headers["x-next-cursor"].startswith("scans.")


def test_minutes_are_shown_where_they_are_kept(kept: Running, org: str) -> None:
    kept.track(org_id=org, feature="scans", quantity=4)
    assert sums(walk(kept, org, window="minute")) == counters(kept, org)
    (row,) = walk(kept, org, window="minute")
    assert datetime.fromisoformat(row["end"]) - datetime.fromisoformat(row["start"]) == timedelta(minutes=1)
    for tz in ZONES:
        answer = ask(kept, org, window="hour", tz=tz).json()
        assert (sums(answer["data"]), answer["aligned"]) == (counters(kept, org), True)


def test_history_adds_up_after_corrections(kept: Running, org: str) -> None:
    for number, (quantity, actor) in enumerate([(9, "ann"), (4, "bob"), (2, "ann")]):
        sent: dict[str, Any] = {"quantity": quantity, "actor": actor, "event_id": f"e-{number}"}
        assert kept.track(org_id=org, feature="scans", **sent).status_code == 200
    admin = token(None, ADMIN)
    void = {"org_id": org, "feature": "scans", "quantity": 4, "reason": "test run"}
    assert kept.call("POST", "/v1/events/e-1/void", admin, json=void).status_code == 200
    for number, delta in enumerate((-3, 1)):
        body = {"org_id": org, "feature": "scans", "delta": delta, "reason": "a typing error", "id": f"t-{number}"}
        assert kept.call("POST", "/v1/usage/adjustments", admin, json=body).status_code == 200
    assert counters(kept, org) == {"scans": (9, 0)}
    for window in ("minute", "hour", "day", "month"):
        for tz in ("UTC", "Asia/Kolkata"):
            rows = walk(kept, org, window=window, tz=tz)
            assert sums(rows) == {"scans": (9, 0)}
            assert all(row["value"] > 0 and row["overage"] >= 0 for row in rows)
    assert groups(walk(kept, org, group_by="actor"), "actor") == {"ann": 11, "bob": 4, None: -6}


# ── several organisations ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair(service: Running) -> list[str]:
    """Two organisations, with 1 and 2 scans."""
    names = sorted(f"org-{secrets.token_hex(6)}" for _ in range(2))
    for units, name in enumerate(names, 1):
        assert service.track(org_id=name, feature="scans", quantity=units).status_code == 200
    return names


def query(service: Running, bearer: str, **body: Any) -> httpx2.Response:
    return service.call("POST", "/v1/usage/query", bearer, json=body)


def test_an_administrator_adds_up_several_organisations_or_shows_each(service: Running, pair: list[str]) -> None:
    admin = token(None, ADMIN)
    answer = query(service, admin, org_ids=pair, window="month").json()
    assert (answer["org_id"], answer["tz"]) == (None, "UTC")
    assert [(row["value"], row["group"]) for row in answer["data"]] == [(3, {})]
    rows: list[tuple[str, int]] = []
    cursor: dict[str, str] = {}
    while True:
        each = query(
            service, admin, org_ids=[*pair, pair[0]], window="month", group_by=["org"], limit=1, **cursor
        ).json()
        rows += [(row["group"]["org"], row["value"]) for row in each["data"]]
        if each["next_cursor"] is None:
            break
        cursor = {"cursor": each["next_cursor"]}
    assert rows == [(pair[0], 1), (pair[1], 2)]


def test_an_administrator_walks_all_organisations(service: Running, pair: list[str]) -> None:
    found: dict[str, int] = defaultdict(int)
    cursor: dict[str, str] = {}
    for _ in range(2000):
        answer = query(service, token(None, ADMIN), group_by=["org"], features=["scans"], limit=5, **cursor).json()
        for row in answer["data"]:
            found[row["group"]["org"]] += row["value"]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert {name: found[name] for name in pair} == {pair[0]: 1, pair[1]: 2}
    assert "next_cursor" in answer
    csv_answer = query(service, token(None, ADMIN), group_by=["org"], features=["scans"], format="csv", limit=1)
    assert cells(csv_answer)[0] == ["start", "end", "feature", "org", "value", "overage"]
    assert csv_answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'


def test_others_ask_about_their_own_alone(service: Running, pair: list[str]) -> None:
    own, other = pair
    for body in ({"org_ids": pair}, {"org_ids": [other]}, {"org_id": other}):
        problem(query(service, token(own), **body), 404, "org-not-found")
    each = query(service, token(own), group_by=["org"], window="month").json()
    assert [row["group"] for row in each["data"]] == [{"org": own}]
    problem(query(service, token(None, ADMIN), org_ids=[own, "org-nobody"]), 404, "org-not-found")


# ── questions that cannot be ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("params", "faults"),
    [
        ({"feature": "scnas"}, [("/feature", "feature-unknown")]),
        ({"group_by": "actor"}, [("/group_by", "dimension-unknown")]),
        ({"metadata.chain": "eth"}, [("/metadata.chain", "dimension-unknown")]),
        ({"actor": "ann", "feature": "nope", "group_by": "metadata.chain"}, [
            ("/feature", "feature-unknown"), ("/group_by", "dimension-unknown"), ("/actor", "dimension-unknown"),
            ("/group_by", "dimensions"),
        ]),
        ({"window": "minute"}, [("/window", "not-kept")]),
        ({"window": "week"}, [("/window", "literal-error")]),
        ({"tz": "Mars/Olympus"}, [("/tz", "timezone")]),
        ({"from": "yesterday"}, [("/from", "timestamp")]),
        ({"form": "2024-01-01T00:00:00Z"}, [("/form", "unknown-field")]),
        ({"from": "2999-01-01T00:00:00Z"}, [("/to", "out-of-range")]),
        ({"to": "9999-12-31T23:59:59Z"}, [("/to", "out-of-range")]),
        ({"from": "2001-01-01T00:00:00Z"}, [("/from", "beyond-retention")]),
        ({"limit": "0"}, [("/limit", "greater-than-equal")]),
        ({"cursor": "scans"}, [("/cursor", "string-pattern-mismatch")]),
        ({"cursor": "scans.5.9.1"}, [("/cursor", "out-of-range")]),
        ({"cursor": "scans.5.1.9"}, [("/cursor", "beyond-retention")]),
        ({"metadata": "eth"}, [("/metadata", "dict-type")]),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_is_told_with_its_place(
    service: Running, used: str, params: dict[str, str], faults: list[tuple[str, str]]
) -> None:
    with service.unchanged():
        body = problem(ask(service, used, **params), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in body["errors"]] == faults


def test_a_question_in_a_body_is_told_with_its_place(service: Running, used: str) -> None:
    body = {"features": ["scans", "scnas"], "group_by": ["org", "actor"], "filter": {"metadata.chain": "eth"}}
    told = problem(query(service, token(used), **body), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [
        ("/features/1", "feature-unknown"), ("/group_by/1", "dimension-unknown"),
        ("/filter/metadata.chain", "dimension-unknown"), ("/group_by", "dimensions"),
    ]  # fmt: skip
    both = problem(query(service, token(used), org_id=used, org_ids=[used]), 422, "validation")
    assert [fault["pointer"] for fault in both["errors"]] == ["/org_ids"]


def test_what_is_not_kept_any_more_names_the_oldest_instant(service: Running, kept: Running, used: str) -> None:
    body = problem(ask(service, used, **{"from": "2001-01-01T00:00:00Z"}), 422, "validation")
    assert ask(service, used, **{"from": body["oldest"]}).status_code == 200
    minutes = problem(
        ask(kept, _made(kept), window="minute", **{"from": iso(now_ms() - 50 * HOUR_MS)}), 422, "validation"
    )
    assert abs(datetime.fromisoformat(minutes["oldest"]).timestamp() * 1000 - (now_ms() - 48 * HOUR_MS)) < 2 * HOUR_MS


def _made(service: Running) -> str:
    name = f"org-{secrets.token_hex(6)}"
    service.track(org_id=name, feature="scans")
    return name


def test_a_declared_dimension_is_suggested(kept: Running, grouped: str) -> None:
    body = problem(ask(kept, grouped, group_by="metadata.chian"), 422, "validation")
    assert "did you mean 'metadata.chain'?" in body["errors"][0]["detail"]
    told = problem(ask(kept, grouped, group_by="actor", window="minute"), 422, "validation")
    assert [fault["code"] for fault in told["errors"]] == ["dimension-minutes"]


def test_history_that_cannot_be_read_is_the_organisations_fault(service: Running, used: str) -> None:
    service.store.hset(KEYS.history(used, "scans", day_text(now_ms() // DAY_MS)), "07", "many")
    problem(ask(service, used), 503, "org-corrupt")


def test_reading_writes_nothing(service: Running, used: str) -> None:
    with service.unchanged():
        for window in ("hour", "day", "month"):
            walk(service, used, window=window, fill="true", limit=3)
        query(service, token(used, USAGE_READ), window="day")
