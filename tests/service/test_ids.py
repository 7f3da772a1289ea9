"""Names that could mean something to a key, a path, a log or an eye are refused everywhere."""

from typing import Final

import pytest

from metering.auth import ADMIN
from metering.names import RESERVED, is_feature, is_org_id, is_text
from tests.service.running import Running, problem, token

BAD_ORGS: Final = {
    "colon": "org:1",
    "hash tag": "{p00}",
    "closing brace": "org}1",
    "star": "org*",
    "question mark": "org?",
    "space": "org 1",
    "CR": "org\r1",
    "LF": "org\n1",
    "LF at the end": "org-1\n",
    "NUL": "org\x00",
    "dots": "..",
    "dot first": ".org",
    "dash first": "-org",
    "underscore first": "_org",
    "percent": "org%31",
    "10 kB": "a" * 10_000,
    "65 characters": "a" * 65,
    "homoglyph": "\u043erg-1",
    "full width": "\uff4frg",
    "right to left": "org\u202e1",
    "zero width": "org\u200b1",
    "combining": "orge\u0301",
    "other digits": "org-\u0661",
}

GOOD_ORGS: Final = ("a", "0", "A.b_c-D", "a" * 64, "my-org", "org-123", "track2", "History")


@pytest.mark.parametrize("org_id", BAD_ORGS.values(), ids=BAD_ORGS)
def test_a_bad_organisation_id_is_refused_in_a_body(service: Running, org_id: str) -> None:
    with service.unchanged():
        body = problem(service.track(org_id=org_id, feature="scans"), 422, "validation")
        update = service.call("POST", "/billing/update", token(None, ADMIN), json={"org_id": org_id, "plan": "free"})
        problem(update, 422, "validation")
    assert body["errors"][0]["pointer"] == "/org_id"


def escaped(text: str) -> str:
    """Every byte of `text` as an escape, so that no client tidies it up."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("org_id", BAD_ORGS.values(), ids=BAD_ORGS)
def test_a_bad_organisation_id_is_refused_in_a_path(service: Running, method: str, org_id: str) -> None:
    sent = {} if method == "GET" else {"json": {"plan": "free"}}
    with service.unchanged():
        problem(service.call(method, f"/v1/orgs/{escaped(org_id)}", token(None, ADMIN), **sent), 422, "validation")


@pytest.mark.parametrize("path", ["/usage/%2e%2e", "/usage/org%0d%0aSet-Cookie:x", "/usage/org%00", "/usage/%ff"])
def test_escapes_in_a_path_are_read_once_and_refused(service: Running, path: str) -> None:
    response = service.call("GET", path, token(None, ADMIN))
    problem(response, 422, "validation")
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ["/usage/a%2fb", "/usage/", "/usage/a/", "//usage/a", "/usage/a/b", "/USAGE/a"])
def test_a_path_that_is_none_of_ours_is_not_found(service: Running, path: str) -> None:
    problem(service.call("GET", path, token(None, ADMIN)), 404, "not-found")


def test_a_line_end_after_a_literal_path_is_another_path(service: Running) -> None:
    problem(service.call("GET", "/health%0a"), 404, "not-found")


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_name_no_organisation(service: Running, word: str) -> None:
    assert not is_org_id(word)
    with service.unchanged():
        fault = problem(service.track(org_id=word, feature="scans"), 422, "validation")["errors"][0]
    assert (fault["pointer"], fault["code"]) == ("/org_id", "reserved")


def test_a_reserved_literal_path_is_not_read_as_an_organisation(service: Running) -> None:
    response = service.call("GET", "/usage/track", token(None, ADMIN))
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("org_id", GOOD_ORGS)
def test_a_good_organisation_id_is_taken_and_found_again(service: Running, org_id: str) -> None:
    assert service.track(org_id=org_id, feature="scans").status_code == 200
    assert service.call("GET", f"/usage/{org_id}", token(None, ADMIN)).json()["org_id"] == org_id


@pytest.mark.parametrize(
    "name", ["", "Scans", "1scan", "_scan", "sc ans", "scans\n", "a" * 65, "sc:ans", "s\u00e7ans", "{a}"]
)
def test_what_cannot_name_a_feature(service: Running, org: str, name: str) -> None:
    assert not is_feature(name)
    with service.unchanged():
        problem(service.track(org_id=org, feature=name), 422, "validation")


BAD_TEXT: Final = [
    "",
    "a\n",
    "a\x1b[31m",
    "\x00",
    "a\x7f",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",
    "a\u2066b",
    "\ufeffa",
    "x" * 256,
]


@pytest.mark.parametrize("field", ["event_id", "source", "actor"])
@pytest.mark.parametrize("text", BAD_TEXT)
def test_ids_of_callers_hold_no_control_characters(service: Running, org: str, field: str, text: str) -> None:
    assert not is_text(text)
    body = {"org_id": org, "feature": "scans", field: text}
    with service.unchanged():
        fault = problem(service.track(**body), 422, "validation")["errors"][0]
    assert fault["pointer"] == f"/{field}"


@pytest.mark.parametrize(
    "text", [" ", "evt 9", "\u00e9", "\U0001f600" * 255, "a:b{c}*", "x" * 255, "\u05d0", "%0a", "'\"\\"]
)
def test_ids_of_callers_may_be_any_other_text(service: Running, org: str, text: str) -> None:
    body = service.track(org_id=org, feature="scans", event_id=text, source=text, actor=text).json()
    again = service.track(org_id=org, feature="scans", event_id=text, source=text).json()
    assert (body["event_id"], again["duplicate"], again["current_usage"]) == (text, True, 1)


def test_two_spellings_of_one_letter_are_two_ids(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", event_id="\u00e9")
    assert service.track(org_id=org, feature="scans", event_id="e\u0301").json()["current_usage"] == 2
