"""ETags of settings, and the conditions that requests set with them."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx2
import pytest

from metering.api.etags import Conditions, conditions_of, etag_of
from metering.api.models.orgs import OrgSettings
from metering.auth import ADMIN, USAGE_READ
from metering.errors import Invalid, PreconditionFailed
from tests.service.running import Running, problem, token

ADMIN_TOKEN: Final = token(None, ADMIN)

TAG: Final = '"a"'


def asked(**headers: str) -> Conditions:
    """The conditions of headers, by their names with underscores."""
    return conditions_of(
        [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    )


# ── what the headers say ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "etag", "holds"),
    [
        ({}, None, True),
        ({}, TAG, True),
        ({"if_match": '"a"'}, TAG, True),
        ({"if_match": '"b"'}, TAG, False),
        ({"if_match": '"b", "a"'}, TAG, True),
        ({"if_match": '"b",\t "c"'}, TAG, False),
        ({"if_match": 'W/"a"'}, TAG, False),
        ({"if_match": '"a"'}, None, False),
        ({"if_match": "*"}, TAG, True),
        ({"if_match": "*"}, None, False),
        ({"if_match": '"*"'}, TAG, False),
        ({"if_match": '"a,b"'}, '"a,b"', True),
        ({"if_none_match": "*"}, None, True),
        ({"if_none_match": "*"}, TAG, False),
        ({"if_none_match": '"a"'}, TAG, False),
        ({"if_none_match": 'W/"a"'}, TAG, False),
        ({"if_none_match": '"b"'}, TAG, True),
        ({"if_none_match": '"a"'}, None, True),
        ({"if_match": '"a"', "if_none_match": '"b"'}, TAG, True),
        ({"if_match": '"a"', "if_none_match": "*"}, TAG, False),
    ],
    ids=str,
)
def test_a_change_goes_ahead_where_its_conditions_hold(headers: dict[str, str], etag: str | None, holds: bool) -> None:
    conditions = asked(**headers)
    assert bool(conditions) == bool(headers)
    if holds:
        conditions.check(etag)
        return
    with pytest.raises(PreconditionFailed) as caught:
        conditions.check(etag)
    assert caught.value.headers == ({} if etag is None else {"ETag": etag})


@pytest.mark.parametrize(
    "text",
    ["", "a", "'a'", '"a', 'a"', '"a" "b"', '"a",', ',"a"', '*, "a"', '"a", *', 'w/"a"', '"a b"', '"a"b"', "W/*",
     '"\x7f"', "**"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["if_match", "if_none_match"])
def test_what_is_no_list_of_tags_is_told(name: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        asked(**{name: text})
    assert caught.value.extra["errors"][0]["code"] == name.replace("_", "-")  # type: ignore[index]


def test_a_header_on_several_lines_is_one_list() -> None:
    conditions_of([(b"if-match", b'"b"'), (b"if-match", b'"a"')]).check(TAG)


def test_a_tag_depends_on_the_content_alone() -> None:
    assert etag_of({"a": 1, "b": {"c": 2, "d": 3}}) == etag_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert etag_of({"a": 1}) != etag_of({"a": 2})
    assert etag_of({"a": 1}) == '"abd04f5426c58fe48d04555e"'


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────


def get(service: Running, org: str, bearer: str = ADMIN_TOKEN, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.call("GET", f"/v1/orgs/{org}", bearer, headers=named)


def put(service: Running, org: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.call("PUT", f"/v1/orgs/{org}", ADMIN_TOKEN, json=body, headers=named)


def tag(service: Running, org: str) -> str:
    etag: str = get(service, org).headers["etag"]
    return etag


@pytest.fixture
def made(service: Running, org: str) -> str:
    """An organisation that exists."""
    assert put(service, org, {}).status_code == 201
    return org


def test_a_caller_that_has_it_is_not_sent_it_again(service: Running, made: str) -> None:
    etag = tag(service, made)
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = get(service, made, if_none_match=condition)
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in response.headers
        assert "content-length" not in response.headers
    assert get(service, made, if_none_match='"other"').status_code == 200
    assert service.call("HEAD", f"/v1/orgs/{made}", ADMIN_TOKEN, headers={"If-None-Match": etag}).status_code == 304


def test_after_a_304_the_connection_goes_on(service: Running, made: str) -> None:
    etag = tag(service, made)
    assert [get(service, made, if_none_match=etag).status_code for _ in range(3)] == [304] * 3
    assert get(service, made).json()["org_id"] == made


def test_usage_leaves_the_tag_alone(service: Running, made: str) -> None:
    etag = tag(service, made)
    service.track(org_id=made, feature="scans", quantity=50)
    assert get(service, made).json()["overage_flagged"]
    assert tag(service, made) == etag


def test_everybody_who_may_read_it_sees_the_same_tag(service: Running, made: str) -> None:
    assert get(service, made, token(made, USAGE_READ)).headers["etag"] == tag(service, made)


def test_two_organisations_with_equal_settings_have_tags_of_their_own(service: Running, made: str) -> None:
    other = f"{made}-2"
    put(service, other, {})
    assert tag(service, made) != tag(service, other)


def test_entitlements_have_a_tag_that_usage_leaves_alone(service: Running, made: str) -> None:
    def ask(**headers: str) -> httpx2.Response:
        return service.call("GET", f"/v1/orgs/{made}/entitlements", ADMIN_TOKEN, headers=headers)

    etag = ask().headers["etag"]
    service.track(org_id=made, feature="scans")
    assert (ask(**{"If-None-Match": etag}).status_code, ask().headers["etag"]) == (304, etag)
    put(service, made, {"limits": {"scans": 7}})
    assert (ask(**{"If-None-Match": etag}).status_code, ask().headers["etag"] == etag) == (200, False)


SETS: Final[dict[str, Any]] = {
    "plan": "professional",
    "limits": {"scans": 3},
    "on_limit": {"scans": "block"},
    "windows": {"scans": [{"limit": 5, "per": "hour"}]},
    "rate_limit": {"events": 5, "per": "minute"},
    "reset": "anniversary",
    "timezone": "Europe/Paris",
    "stripe_customer_id": "cus_1",
    "overrides": {"scans": {"limit": 4}},
    "price_minor": 5,
    "overrides_expire_at": "2200-01-01T00:00:00Z",
}
BEFORE: Final[dict[str, Any]] = {"overrides_expire_at": {"price_minor": 5}}
"""What has to be there for a setting to mean something."""


@pytest.mark.parametrize("name", OrgSettings.model_fields)
def test_whatever_can_be_set_changes_the_tag(service: Running, made: str, name: str) -> None:
    assert name in SETS, "Add a value that changes the new setting, and the setting to metering.store.org.settings_of."
    put(service, made, BEFORE.get(name, {}))
    before = tag(service, made)
    response = put(service, made, {name: SETS[name]})
    assert response.headers["etag"] == tag(service, made) != before
    assert put(service, made, {name: SETS[name]}).headers["etag"] == response.headers["etag"]


# ── changing ─────────────────────────────────────────────────────────────────────────────────────────────

WAYS: Final = ["PUT", "POST"]


def change(service: Running, way: str, org: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    """The change through one of the two routes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path, sent = (f"/v1/orgs/{org}", body) if way == "PUT" else ("/billing/update", {"org_id": org, **body})
    return service.call(way, path, ADMIN_TOKEN, json=sent, headers=named)


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_what_was_seen_goes_ahead_and_gives_the_next_tag(service: Running, made: str, way: str) -> None:
    first = tag(service, made)
    second = change(service, way, made, {"limits": {"scans": 1}}, if_match=first)
    third = change(service, way, made, {"limits": {"scans": 2}}, if_match=second.headers["etag"])
    assert (second.status_code, third.status_code) == (200, 200)
    assert third.headers["etag"] == tag(service, made)


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_what_has_changed_is_refused_and_changes_nothing(service: Running, made: str, way: str) -> None:
    seen = tag(service, made)
    put(service, made, {"limits": {"scans": 1}})
    with service.unchanged():
        for body in ({"limits": {"scans": 2}}, {"limits": {"scans": 1}}, {}):
            response = change(service, way, made, body, if_match=seen)
            problem(response, 412, "precondition-failed")
            assert response.headers["etag"] == tag(service, made) != seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("condition", ["*", '"x"'])
def test_what_does_not_exist_matches_nothing_and_is_not_made(
    service: Running, org: str, way: str, condition: str
) -> None:
    with service.unchanged():
        response = change(service, way, org, {"plan": "free"}, if_match=condition)
    problem(response, 412, "precondition-failed")
    assert "etag" not in response.headers


@pytest.mark.parametrize("way", WAYS)
def test_what_exists_matches_a_star(service: Running, made: str, way: str) -> None:
    assert change(service, way, made, {"plan": "free"}, if_match="*").status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_only_what_does_not_exist_is_made(service: Running, org: str, way: str) -> None:
    made = change(service, way, org, {"plan": "free"}, if_none_match="*")
    assert made.status_code == (201 if way == "PUT" else 200)
    with service.unchanged():
        problem(change(service, way, org, {"plan": "free"}, if_none_match="*"), 412, "precondition-failed")


@pytest.mark.parametrize("way", WAYS)
def test_a_tag_without_quotes_is_told(service: Running, made: str, way: str) -> None:
    bare = tag(service, made).strip('"')
    with service.unchanged():
        body = problem(change(service, way, made, {"plan": "free"}, if_match=bare), 422, "validation")
    assert body["errors"][0]["code"] == "if-match"
    problem(get(service, made, if_none_match=bare), 422, "validation")


def test_of_20_that_saw_the_same_one_changes_it(service: Running, made: str) -> None:
    for _ in range(5):
        seen = tag(service, made)

        def changed(limit: int, seen: str = seen) -> tuple[int, int]:
            response = put(service, made, {"limits": {"scans": limit}}, if_match=seen)
            return response.status_code, limit

        first = secrets.randbelow(10**6)
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(changed, range(first, first + 20)))
        [won] = [limit for status, limit in found if status == 200]
        assert {status for status, _ in found} == {200, 412}
        assert get(service, made).json()["features"]["scans"]["limit"] == won


def test_of_20_that_only_create_one_does(service: Running, org: str) -> None:
    def made(_: int) -> int:
        return put(service, org, {"plan": "free"}, if_none_match="*").status_code

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(made, range(20))) == [201] + [412] * 19


def test_with_a_key_a_change_that_is_there_already_succeeds(service: Running, made: str) -> None:
    """A worker that died after the change has raised the tag; the repeat is the caller's own."""
    seen, body = tag(service, made), {"limits": {"scans": 4}}
    assert put(service, made, body, if_match=seen).status_code == 200
    problem(put(service, made, body, if_match=seen), 412, "precondition-failed")
    key = secrets.token_hex(16)
    assert put(service, made, body, if_match=seen, idempotency_key=key).status_code == 200
    other = put(service, made, {"limits": {"scans": 5}}, if_match=seen, idempotency_key=secrets.token_hex(16))
    problem(other, 412, "precondition-failed")
    create = put(service, made, body, if_none_match="*", idempotency_key=secrets.token_hex(16))
    problem(create, 412, "precondition-failed")


def test_a_refused_change_is_refused_again_under_its_key(service: Running, made: str) -> None:
    headers = {"if_match": '"x"', "idempotency_key": secrets.token_hex(16)}
    first, again = (put(service, made, {"plan": "professional"}, **headers) for _ in range(2))
    assert (first.status_code, again.status_code, again.content) == (412, 412, first.content)
    assert again.headers["etag"] == first.headers["etag"]
