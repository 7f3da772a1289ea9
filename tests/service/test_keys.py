"""API keys over HTTP: who may make which, who sees which, and that a key works wherever a token does."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any, Final, get_args

import httpx2
import pytest
from pydantic import SecretStr

from metering.api.models.keys import ScopeName
from metering.api.route import OPEN
from metering.api.routes import ROUTES
from metering.auth import ADMIN, BILLING_READ, KEYS, USAGE_READ, USAGE_WRITE
from metering.credentials import bills
from metering.settings import Settings
from metering.tokens import SCOPES
from tests.service.running import OWN, Running, problem, token
from tests.service.test_tenancy import ROWS, comparable
from tests.support.wait import wait_until

ROOT: Final = token(None, ADMIN)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Running]:
    """A service of this module's own: using a key writes down that it was used, a minute later."""
    with Running() as running:
        yield running


@pytest.fixture
def own(keyed: Running) -> str:
    """An organisation that exists."""
    name = f"org-{secrets.token_hex(6)}"
    assert keyed.track(org_id=name, feature="scans").status_code == 200
    return name


other = own


def asked(service: Running, bearer: str, **body: Any) -> httpx2.Response:
    return service.call("POST", "/v1/keys", bearer, json={"name": "n", "scopes": [USAGE_WRITE]} | body)


def made(service: Running, org: str | None, *scopes: str, bearer: str = ROOT, **more: Any) -> dict[str, Any]:
    """A key as its maker sees it."""
    body = {"scopes": list(scopes or (USAGE_WRITE, USAGE_READ))} | ({} if org is None else {"org_id": org}) | more
    response = asked(service, bearer, **body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def listed(service: Running, bearer: str, **params: Any) -> list[dict[str, Any]]:
    response = service.call("GET", "/v1/keys", bearer, params=params)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def deleted(service: Running, key_id: str, bearer: str = ROOT) -> httpx2.Response:
    return service.call("DELETE", f"/v1/keys/{key_id}", bearer)


# ── making ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_shown_once(keyed: Running, own: str) -> None:
    response = asked(keyed, token(own), scopes=[USAGE_WRITE])
    key = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert re.fullmatch(rf"mk_test_{key['key_id']}_[0-9a-f]{{64}}", key["key"])
    shown = {name: key[name] for name in ("name", "mode", "org_id", "scopes", "created_by", "expires_at")}
    assert shown == {
        "name": "n", "mode": "test", "org_id": own, "scopes": [USAGE_WRITE], "created_by": "tester", "expires_at": None,
    }  # fmt: skip
    [again] = listed(keyed, token(own))
    assert again == {name: value for name, value in key.items() if name != "key"}
    assert key["key"].rpartition("_")[2] not in json.dumps(again)


def test_the_scopes_of_keys_are_those_of_tokens() -> None:
    assert get_args(ScopeName) == SCOPES


@pytest.mark.parametrize("scopes", [[USAGE_WRITE], [*OWN], [BILLING_READ, KEYS]])
def test_a_maker_gives_what_it_holds(keyed: Running, own: str, scopes: list[str]) -> None:
    assert made(keyed, None, *scopes, bearer=token(own))["scopes"] == scopes


@pytest.mark.parametrize("lacking", ["refunds", ADMIN])
def test_a_maker_does_not_give_what_it_does_not_hold(keyed: Running, own: str, lacking: str) -> None:
    with keyed.unchanged():
        refused = problem(asked(keyed, token(own), scopes=[USAGE_WRITE, lacking]), 403, "forbidden")
    assert lacking in refused["detail"]


def test_a_key_does_not_give_what_it_does_not_hold_either(keyed: Running, own: str) -> None:
    key = made(keyed, own, KEYS, USAGE_READ)["key"]
    assert made(keyed, None, KEYS, USAGE_READ, bearer=key)["org_id"] == own
    problem(asked(keyed, key, scopes=[USAGE_WRITE]), 403, "forbidden")
    problem(asked(keyed, made(keyed, own, USAGE_WRITE)["key"], scopes=[USAGE_WRITE]), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"name": ""}, "/name", "string-too-short"),
        ({"name": "a\nb"}, "/name", "string-pattern-mismatch"),
        ({"name": 7}, "/name", "string-type"),
        ({"scopes": []}, "/scopes", "too-short"),
        ({"scopes": ["root"]}, "/scopes/0", "literal-error"),
        ({"scopes": "admin"}, "/scopes", "list-type"),
        ({"scopes": [USAGE_WRITE, USAGE_WRITE]}, "/scopes", "repeated"),
        ({"org_id": "a:b"}, "/org_id", "string-pattern-mismatch"),
        ({"ttl_s": 0}, "/ttl_s", "greater-than-equal"),
        ({"ttl_s": 10**9}, "/ttl_s", "less-than-equal"),
        ({"ttl_s": 1.5}, "/ttl_s", "int-type"),
        ({"ttl_s": True}, "/ttl_s", "int-type"),
        ({"expires_at": "soon"}, "/expires_at", "timestamp"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "out-of-range"),
        ({"expires_at": "9999-12-31T23:59:60Z"}, "/expires_at", "timestamp"),
        ({"expires_at": "2099-01-01T00:00:00Z", "ttl_s": 60}, "", "conflict"),
        ({"key": "mk_live_mine"}, "/key", "unknown-field"),
        ({"digest": "0" * 64}, "/digest", "unknown-field"),
    ],
)
def test_a_bad_wish_is_refused_and_makes_nothing(
    keyed: Running, own: str, body: dict[str, Any], pointer: str, code: str
) -> None:
    with keyed.unchanged():
        told = problem(asked(keyed, token(own), **body), 422, "validation")
    assert (pointer, code) in {(fault["pointer"], fault["code"]) for fault in told["errors"]}


def test_all_faults_of_a_wish_are_told_at_once(keyed: Running, own: str) -> None:
    told = problem(asked(keyed, token(own), name="", scopes=["root"], ttl_s=0), 422, "validation")
    assert {fault["pointer"] for fault in told["errors"]} == {"/name", "/scopes/0", "/ttl_s"}


def test_a_key_names_an_organisation_unless_it_is_administrators_own(keyed: Running) -> None:
    told = problem(asked(keyed, ROOT), 422, "validation")
    assert told["errors"][0]["pointer"] == "/org_id"
    operator = made(keyed, None, ADMIN)
    assert operator["org_id"] is None
    assert keyed.call("GET", "/v1/orgs", operator["key"]).status_code == 200


@pytest.mark.parametrize(
    ("settings", "live"),
    [
        ({}, True),
        ({"debug": True}, False),
        ({"stripe_secret_key": SecretStr("sk_live_1")}, True),
        ({"stripe_secret_key": SecretStr("rk_test_1")}, False),
    ],
)
def test_keys_of_a_service_that_bills_nobody_are_marked_so(settings: dict[str, Any], live: bool) -> None:
    assert bills(Settings(**settings)) is live


# ── using ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_counts_usage_as_a_token_does(keyed: Running, own: str) -> None:
    key = made(keyed, own)["key"]
    first = keyed.track(key, feature="scans", quantity=3)
    assert (first.status_code, first.json()["org_id"], first.json()["current_usage"]) == (200, own, 4)
    assert keyed.call("GET", "/usage", key).json()["features"]["scans"]["current"] == 4


@pytest.mark.parametrize(
    ("method", "path"),
    [(route.method, path) for route in ROUTES if route.scope != OPEN for path in (route.path, *route.aliases)],
)
def test_a_key_is_taken_on_every_route_that_takes_a_token(keyed: Running, own: str, method: str, path: str) -> None:
    """And decides as much: the same answer as to a token, but for what names the request and the moment."""
    with_token = token(own, ADMIN)
    with_key = made(keyed, own, ADMIN)["key"]
    sent, body = ROWS[method, path].sent(own)
    more = {} if body is None else {"json": body}
    statuses = [keyed.call(method, sent, bearer, **more).status_code for bearer in (with_key, with_token)]
    assert statuses[0] == statuses[1]
    assert statuses[1] not in {401, 403}


def test_a_key_without_the_scope_is_refused(keyed: Running, own: str) -> None:
    key = made(keyed, own, USAGE_READ)["key"]
    assert keyed.call("GET", "/usage", key).status_code == 200
    problem(keyed.track(key, feature="scans"), 403, "forbidden")
    problem(keyed.call("GET", "/v1/keys", key), 403, "forbidden")


def test_a_key_sees_its_own_organisation_alone(keyed: Running, own: str, other: str) -> None:
    key = made(keyed, own)["key"]
    with keyed.unchanged():
        foreign = keyed.track(key, org_id=other, feature="scans")
        unknown = keyed.track(key, org_id="org-nobody", feature="scans")
    assert comparable(foreign) == comparable(unknown)
    problem(foreign, 404, "org-not-found")


@pytest.mark.parametrize(
    "spelling",
    ["bearer {key}", "BEARER {key}", "Bearer  {key}"],
)
def test_a_key_is_taken_however_the_header_spells_its_scheme(keyed: Running, own: str, spelling: str) -> None:
    key = made(keyed, own)["key"]
    answers = [
        keyed.call("GET", "/usage", headers={"Authorization": spelling.format(key=key)}).status_code for _ in range(2)
    ]
    assert answers == [200, 200]


@pytest.mark.parametrize(
    "spelling",
    ["{key}", "Basic {key}", "Bearer {key}x", "Bearer {upper}", "Bearer {key} {key}", "Token {key}", 'Bearer "{key}"'],
)
def test_any_other_header_is_refused(keyed: Running, own: str, spelling: str) -> None:
    key = made(keyed, own)["key"]
    header = spelling.format(key=key, upper=key.upper())
    problem(keyed.call("GET", "/usage", headers={"Authorization": header}), 401, "unauthenticated")


@pytest.mark.parametrize("place", [{"params": {"api_key": "{key}"}}, {"headers": {"X-Api-Key": "{key}"}}])
def test_a_key_anywhere_else_is_not_looked_at(keyed: Running, own: str, place: dict[str, dict[str, str]]) -> None:
    key = made(keyed, own)["key"]
    filled: dict[str, Any] = {
        kind: {name: text.format(key=key) for name, text in values.items()} for kind, values in place.items()
    }
    problem(keyed.call("GET", "/usage", **filled), 401, "unauthenticated")


def test_a_wrong_text_and_a_deleted_key_are_told_alike(keyed: Running, own: str) -> None:
    """Nobody learns which ids exist: the answers are the same to the byte."""
    living, ended = made(keyed, own), made(keyed, own)
    deleted(keyed, ended["key_id"])
    guesses = (living["key"][:-1] + "x", living["key"][:28] + "0" * 64, ended["key"], f"mk_test_{'0' * 19}_{'0' * 64}")
    answers = [comparable(keyed.call("GET", "/usage", guess)) for guess in guesses]
    assert answers[0][0] == 401
    assert all(answer == answers[0] for answer in answers)


def test_a_key_that_has_expired_says_so(keyed: Running, own: str) -> None:
    key = made(keyed, own, ttl_s=1)
    assert key["expires_at"] is not None
    wait_until(lambda: keyed.call("GET", "/usage", key["key"]).status_code != 200, timeout_s=5, what="the key expires")
    refused = problem(keyed.call("GET", "/usage", key["key"]), 401, "unauthenticated")
    assert "has expired" in refused["detail"]


def test_no_key_is_in_the_store_or_in_what_is_logged(
    keyed: Running, own: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = made(keyed, own)
    keyed.call("GET", "/usage", key["key"])
    keyed.call("GET", "/usage", key["key"][:-1] + "x")
    deleted(keyed, key["key_id"])
    secret = key["key"].rpartition("_")[2]
    assert secret.encode() not in b"".join(keyed.snapshot().values())
    out, err = capfd.readouterr()
    assert secret not in out + err


# ── listing and deleting ─────────────────────────────────────────────────────────────────────────────────


def test_a_list_is_walked_page_by_page(keyed: Running, own: str) -> None:
    expected = {made(keyed, own, name=f"k{number}")["key_id"] for number in range(5)}
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = keyed.call("GET", "/v1/keys", token(own), params={"limit": "2", **cursor}).json()
        found += [key["key_id"] for key in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert (set(found), len(found)) == (expected, 5)


def test_an_administrator_lists_all_and_each_organisation_its_own(keyed: Running, own: str, other: str) -> None:
    mine, theirs, operator = (made(keyed, org, *scopes) for org, *scopes in ((own,), (other,), (None, ADMIN)))
    everything = {key["key_id"] for key in listed(keyed, ROOT, limit=500)}
    assert {mine["key_id"], theirs["key_id"], operator["key_id"]} <= everything
    assert [key["key_id"] for key in listed(keyed, token(own))] == [mine["key_id"]]
    assert [key["key_id"] for key in listed(keyed, ROOT, org_id=other)] == [theirs["key_id"]]
    assert {key["key_id"] for key in listed(keyed, token(own, ADMIN), limit=500)} == everything


@pytest.mark.parametrize(
    "cursor", ["x", "0.a", "0" * 19, f"{'0' * 18}g.", f"{'0' * 19}.a:b", f"{'0' * 19}.a|b", f"{'0' * 19}.a\n"]
)
def test_a_cursor_that_is_none_is_refused(keyed: Running, own: str, cursor: str) -> None:
    problem(keyed.call("GET", "/v1/keys", token(own), params={"cursor": cursor}), 422, "validation")


def test_a_deleted_key_is_refused_at_once_on_this_worker(keyed: Running, own: str) -> None:
    key = made(keyed, own)
    assert keyed.track(key["key"], feature="scans").status_code == 200
    answer = deleted(keyed, key["key_id"], token(own))
    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"content-type", "content-length"} & set(answer.headers)
    problem(keyed.track(key["key"], feature="scans"), 401, "unauthenticated")
    assert listed(keyed, token(own)) == []


def test_deleting_again_is_answered_the_same_and_by_others_not_at_all(keyed: Running, own: str, other: str) -> None:
    key_id = made(keyed, own)["key_id"]
    assert [deleted(keyed, key_id, token(own)).status_code for _ in range(3)] == [204, 204, 204]
    problem(deleted(keyed, key_id, token(other)), 404, "key-not-found")
    assert deleted(keyed, key_id).status_code == 204


@pytest.mark.parametrize("key_id", ["0" * 19, "x", "fff" + "0" * 16, "0" * 18, "%2e%2e", "a" * 2000, "0" * 18 + "%0a"])
def test_a_foreign_key_an_unknown_one_and_no_id_at_all_are_told_alike(
    keyed: Running, own: str, other: str, key_id: str
) -> None:
    foreign = made(keyed, other)["key_id"]
    with keyed.unchanged():
        answers = [comparable(deleted(keyed, sought, token(own))) for sought in (foreign, key_id)]
    assert answers[0][0] == 404
    assert answers[0] == answers[1]


@pytest.mark.parametrize("with_org", [True, False])
def test_a_key_that_may_everything_is_administrators_business(keyed: Running, own: str, with_org: bool) -> None:
    key = made(keyed, own if with_org else None, ADMIN)
    assert listed(keyed, token(own)) == []
    problem(deleted(keyed, key["key_id"], token(own)), 404, "key-not-found")
    assert deleted(keyed, key["key_id"]).status_code == 204


def test_a_key_can_end_itself(keyed: Running, own: str) -> None:
    key = made(keyed, own, KEYS)
    assert deleted(keyed, key["key_id"], key["key"]).status_code == 204
    problem(deleted(keyed, key["key_id"], key["key"]), 401, "unauthenticated")


def test_making_and_ending_a_key_stands_in_the_trail(keyed: Running, own: str) -> None:
    key = made(keyed, own, bearer=token(own, sub="ann"))
    deleted(keyed, key["key_id"], token(own, sub="bob"))
    [stream] = [name for name in keyed.snapshot() if name.endswith(f":a:{own}".encode())]
    listed_entries: Any = keyed.store.xrange(stream)
    entries = [fields for _, fields in listed_entries if fields[b"type"].startswith(b"key_")]
    told = [(fields[b"type"], fields[b"actor"], fields[b"key_id"], fields[b"scopes"]) for fields in entries]
    scopes = f"{USAGE_WRITE} {USAGE_READ}".encode()
    assert told == [
        (b"key_created", b"ann", key["key_id"].encode(), scopes),
        (b"key_deleted", b"bob", key["key_id"].encode(), scopes),
    ]


def test_a_repeat_with_an_idempotency_key_gives_the_same_key_and_makes_no_other(keyed: Running, own: str) -> None:
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    body = {"name": "n", "scopes": [USAGE_WRITE]}
    first, again = (keyed.call("POST", "/v1/keys", token(own), json=body, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(listed(keyed, token(own))) == 1
    guessed = keyed.call("POST", "/v1/keys", token(own), json=body, headers={"Idempotency-Key": "1"})
    problem(guessed, 422, "validation")


# ── denying tokens ───────────────────────────────────────────────────────────────────────────────────────


def test_a_denied_token_is_refused_and_others_are_not(keyed: Running, own: str) -> None:
    jti = secrets.token_hex(8)
    leaked, fine = token(own, jti=jti), token(own, jti=secrets.token_hex(8))
    assert keyed.call("GET", "/usage", leaked).status_code == 200
    answer = keyed.call("POST", "/v1/tokens/deny", ROOT, json={"jti": jti})
    assert (answer.status_code, answer.json()) == (200, {"jti": jti, "expires_at": None})
    assert "withdrawn" in problem(keyed.call("GET", "/usage", leaked), 401, "unauthenticated")["detail"]
    for bearer in (fine, token(own), token(own, jti="")):
        assert keyed.call("GET", "/usage", bearer).status_code == 200


def test_of_two_denials_the_later_end_counts(keyed: Running) -> None:
    jti = secrets.token_hex(8)
    ends = ["2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2097-01-01T00:00:00Z", None]
    told = [
        keyed.call("POST", "/v1/tokens/deny", ROOT, json={"jti": jti} | ({} if end is None else {"expires_at": end}))
        for end in ends
    ]
    assert [answer.json()["expires_at"] for answer in told] == [ends[0], ends[1], ends[1], None]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/jti"),
        ({"jti": ""}, "/jti"),
        ({"jti": 7}, "/jti"),
        ({"jti": "a\nb"}, "/jti"),
        ({"jti": "a" * 256}, "/jti"),
        ({"jti": "a", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"jti": "a", "expires_at": "9999-12-31T23:59:59-00:01"}, "/expires_at"),
        ({"jti": "a", "sub": "b"}, "/sub"),
    ],
)
def test_a_bad_denial_is_refused_and_denies_nobody(keyed: Running, body: dict[str, Any], pointer: str) -> None:
    with keyed.unchanged():
        told = problem(keyed.call("POST", "/v1/tokens/deny", ROOT, json=body), 422, "validation")
    assert told["errors"][0]["pointer"] == pointer
