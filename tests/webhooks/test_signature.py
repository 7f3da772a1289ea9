"""Only Stripe's own word is believed: the bytes, any of the secrets, within five minutes on either side."""

import hashlib
import hmac
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.signature import TOLERANCE_S, Verdict, check, sign

NOW_S: Final = 1_790_000_000
BODY: Final = b'{"id": "evt_1", "object": "event"}'
SECRET: Final = "whsec_one"
OTHER: Final = "whsec_two"


def made(body: bytes = BODY, secret: str = SECRET, at: bytes = b"1790000000") -> bytes:
    """A v1 signature, made as Stripe's documentation says."""
    return hmac.new(secret.encode(), at + b"." + body, hashlib.sha256).hexdigest().encode()


def verdict(header: bytes, body: bytes = BODY, *secrets: str, now_s: float = NOW_S) -> Verdict:
    return check(header, body, secrets or (SECRET,), now_s)


def test_what_stripe_signs_is_genuine() -> None:
    assert verdict(b"t=1790000000,v1=" + made()) is Verdict.GENUINE


def test_the_signature_is_the_documented_one() -> None:
    """A digest computed elsewhere (`openssl dgst -sha256 -hmac`), so that both ends are not wrong together."""
    assert sign(b"{}", ["whsec_test"], 1) == ("t=1,v1=7500d5d4be4b3ef07af1fe56f7d522d135cdaa7530de557e67cc1049c52de094")


@pytest.mark.parametrize(
    "header",
    [
        b"v1=%s,t=1790000000" % made(),
        b"t=1790000000, v1=%s" % made(),
        b"t=1790000000,v1=%s,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39" % made(),
        b"t=1790000000,v1=%s,v1=%s" % (made(secret=OTHER), made()),
        b"t=1790000000,v1=,v1=%s" % made(),
        b"t=1790000000,v1=%s,v2=whatever" % made(),
        b"t=1790000000,v1=\xff\xfe,v1=%s" % made(),
    ],
    ids=["order", "blank", "v0 beside", "two v1", "empty v1", "a later scheme", "one v1 is no text"],
)
def test_what_else_stands_in_the_header_does_not_matter(header: bytes) -> None:
    assert verdict(header) is Verdict.GENUINE


@pytest.mark.parametrize(
    "header",
    [
        b"t=1790000000,v0=%s" % made(),
        b"t=1790000000",
        b"v1=%s" % made(),
        b"",
        b"nonsense",
        b"t=,v1=%s" % made(at=b""),
        b"t=soon,v1=%s" % made(at=b"soon"),
        b"t=-1,v1=%s" % made(at=b"-1"),
        b"t=1790000000.5,v1=%s" % made(at=b"1790000000.5"),
        b"t=\xd9\xa1,v1=%s" % made(at=b"\xd9\xa1"),
        b"t=%s,v1=%s" % (b"9" * 5000, made(at=b"9" * 5000)),
        b"t=1790000000,t=1790000000,v1=%s" % made(),
    ],
    ids=[
        "v0 alone", "no v1", "no t", "empty", "no header", "empty t", "t is a word", "negative t", "part of a second",
        "foreign digits", "a time without end", "two times",
    ],
)  # fmt: skip
def test_a_header_of_another_shape_is_told_apart(header: bytes) -> None:
    assert verdict(header) is Verdict.MALFORMED


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"t=1790000000,v1=%s" % made(), BODY.replace(b": ", b":")),
        (b"t=1790000000,v1=%s" % made(), BODY + b"\n"),
        (b"t=1790000001,v1=%s" % made(), BODY),
        (b"t=1790000000,v1=%s" % made(secret=OTHER), BODY),
        (b"t=1790000000,v1=%s" % made().upper(), BODY),
        (b"t=1790000000,v1=%s" % made()[:-1], BODY),
        (b"t=1790000000,v1=", BODY),
        ("t=1790000000,v1=é".encode(), BODY),
    ],
    ids=["written again", "one byte more", "another time", "another secret", "capitals", "cut off", "empty", "no hex"],
)
def test_what_stripe_did_not_sign_is_forged(header: bytes, body: bytes) -> None:
    assert verdict(header, body) is Verdict.FORGED


def test_without_a_secret_nothing_is_genuine() -> None:
    assert check(b"t=1790000000,v1=%s" % made(secret=""), BODY, [], NOW_S) is Verdict.FORGED


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET), (SECRET,)])
def test_any_of_our_secrets_is_good_enough(secrets: tuple[str, ...]) -> None:
    assert verdict(b"t=1790000000,v1=" + made(), BODY, *secrets) is Verdict.GENUINE


@pytest.mark.parametrize(("ours", "theirs"), [((SECRET,), (SECRET, OTHER)), ((OTHER,), (SECRET, OTHER))])
def test_while_a_secret_is_rolled_both_are_good(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    assert verdict(sign(BODY, theirs, NOW_S).encode(), BODY, *ours) is Verdict.GENUINE


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (NOW_S + TOLERANCE_S, Verdict.GENUINE),
        (NOW_S + TOLERANCE_S + 1, Verdict.STALE),
        (NOW_S - TOLERANCE_S, Verdict.GENUINE),
        (NOW_S - TOLERANCE_S - 1, Verdict.EARLY),
        (NOW_S - 3600, Verdict.EARLY),
        (NOW_S + 0.5 + TOLERANCE_S, Verdict.STALE),
    ],
)
def test_five_minutes_on_either_side_are_believed(now_s: float, expected: Verdict) -> None:
    assert verdict(b"t=1790000000,v1=" + made(), now_s=now_s) is expected


def test_the_clock_is_told_only_of_what_was_really_signed() -> None:
    assert verdict(b"t=1790000000,v1=" + made(secret=OTHER), now_s=NOW_S + 3600) is Verdict.FORGED


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"", "déjà".encode("latin-1")])
def test_a_body_that_is_no_text_is_signed_like_any_other(body: bytes) -> None:
    assert verdict(sign(body, [SECRET], NOW_S).encode(), body) is Verdict.GENUINE


@given(header=st.binary(max_size=200), body=st.binary(max_size=50))
def test_no_header_and_no_body_surprise(header: bytes, body: bytes) -> None:
    assert verdict(header, body) in {Verdict.MALFORMED, Verdict.FORGED}
