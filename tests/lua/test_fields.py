"""Sensitive values at rest, and names in shared streams that only the organisation's key opens."""

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from metering.encryption_errors import EncryptionKeyUnknown
from metering.store.fields import (
    FieldCodec,
    key_id_of,
    new_data_key,
    opened_name,
    own_text,
    pseudonym,
    sealed_name,
    without_ids,
)

KEY = bytes(range(32))
OLD, NEW = ("k1", b"1" * 32), ("k2", b"2" * 32)


@given(st.text())
def test_a_field_is_read_back_as_it_was_written(text: str) -> None:
    codec = FieldCodec()
    assert codec.decode("acme", "stripe_customer", codec.encode("acme", "stripe_customer", text)) == text


def test_a_stored_field_names_its_scheme() -> None:
    assert FieldCodec().encode("acme", "stripe_customer", "cus_1") == "p.cus_1"


@pytest.mark.parametrize("stored", ["", "cus_1", "v.cus_1", "P.cus_1"])
def test_a_field_under_an_unknown_scheme_is_refused_by_name(stored: str) -> None:
    with pytest.raises(ValueError, match="field stripe_customer of acme is stored under an unknown scheme"):
        FieldCodec().decode("acme", "stripe_customer", stored)


@given(st.text())
def test_an_encrypted_field_is_read_back_names_its_key_and_does_not_hold_the_text(text: str) -> None:
    stored = FieldCodec([NEW, OLD]).encode("acme", "stripe_customer", f"cus_secret{text}")
    assert stored.startswith("v1.k2.")
    assert "cus_secret" not in stored
    assert key_id_of(stored) == "k2"
    assert FieldCodec([NEW]).decode("acme", "stripe_customer", stored) == f"cus_secret{text}"


def test_the_same_text_is_another_box_each_time() -> None:
    codec = FieldCodec([NEW])
    assert codec.encode("acme", "key", "x") != codec.encode("acme", "key", "x")


def test_half_way_through_a_rotation_values_of_every_age_are_read() -> None:
    stored = [FieldCodec(ring).encode("acme", "debts", "[]") for ring in ([], [OLD], [NEW, OLD])]
    assert [key_id_of(one) for one in stored] == ["", "k1", "k2"]
    for ring in ([NEW, OLD], [OLD, NEW]):
        assert [FieldCodec(ring).decode("acme", "debts", one) for one in stored] == ["[]"] * 3


@pytest.mark.parametrize("ring", [[], [NEW]])
def test_a_value_under_a_key_that_is_not_there_is_a_problem_of_its_own(ring: list[tuple[str, bytes]]) -> None:
    stored = FieldCodec([OLD]).encode("acme", "debts", "[]")
    with pytest.raises(EncryptionKeyUnknown):
        FieldCodec(ring).decode("acme", "debts", stored)


@pytest.mark.parametrize(("org", "field"), [("beta", "debts"), ("acme", "key"), ("acm", "edebts"), ("", "acmedebts")])
def test_a_box_that_was_moved_to_another_organisation_or_field_does_not_open(org: str, field: str) -> None:
    codec = FieldCodec([OLD])
    for stored in (codec.encode("acme", "debts", "[]"), own_text("acme", "debts", "[]", KEY)):
        assert codec.decode("acme", "debts", stored, KEY) == "[]"
        with pytest.raises(ValueError, match="does not open"):
            codec.decode(org, field, stored, KEY)


def test_a_box_does_not_open_under_the_name_of_another_key() -> None:
    codec = FieldCodec([OLD, ("k2", OLD[1])])
    with pytest.raises(ValueError, match="does not open"):
        codec.decode("acme", "debts", codec.encode("acme", "debts", "[]").replace("v1.k1.", "v1.k2."))


@pytest.mark.parametrize("box", ["", "A", "AAAA", "!", "\u00e9", "A" * 40])
def test_a_box_that_is_none_is_refused(box: str) -> None:
    with pytest.raises(ValueError, match="does not open"):
        FieldCodec([OLD]).decode("acme", "debts", f"v1.k1.{box}")


def test_a_streams_value_opens_under_the_organisations_key_alone() -> None:
    stored, codec = own_text("acme", "ref", "pi_1", KEY), FieldCodec([NEW])
    assert codec.decode("acme", "ref", stored, KEY) == "pi_1"
    with pytest.raises(ValueError, match="does not open"):
        codec.decode("acme", "ref", stored, new_data_key())
    with pytest.raises(ValueError, match="unknown scheme"):
        codec.decode("acme", "ref", stored)


def test_words_of_stripes_lose_the_ids_in_them() -> None:
    told = "No such customer: 'cus_NffrFeUfNV2Hib'; the payment pi_3MtwBwLkdIwHu7ix28a3tqPa is in_progress"
    assert without_ids(told) == "No such customer: 'cus_***'; the payment pi_*** is in_progress"


def test_every_organisation_gets_a_key_of_its_own() -> None:
    keys = {new_data_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True))
def test_a_sealed_name_opens_to_the_organisation_under_its_key(org: str) -> None:
    assert opened_name(sealed_name(org, KEY), KEY) == org


def test_a_sealed_name_does_not_hold_the_plain_one() -> None:
    assert "acme" not in sealed_name("acme", KEY)


def test_a_sealed_name_stays_shut_without_the_key() -> None:
    with pytest.raises(InvalidTag):
        opened_name(sealed_name("acme", KEY), new_data_key())


def test_a_changed_sealed_name_is_refused() -> None:
    pseudonym, _, box = sealed_name("acme", KEY).partition(".")
    changed = f"{pseudonym}.{box[:-8]}{'A' if box[-8] != 'A' else 'B'}{box[-7:]}"
    with pytest.raises(InvalidTag):
        opened_name(changed, KEY)


def test_a_sealed_name_begins_with_the_pseudonym() -> None:
    assert sealed_name("acme", KEY).partition(".")[0] == pseudonym("acme", KEY)


def test_the_pseudonym_is_stable_for_an_organisation_and_another_for_each_key() -> None:
    assert pseudonym("acme", KEY) == "c6667e9ad5c0f33e81dccf10"  # the text in every stored entry
    assert pseudonym("acme", KEY) != pseudonym("acme", new_data_key())
    assert pseudonym("acme", KEY) != pseudonym("beta", KEY)


def test_two_seals_of_one_name_differ_in_their_box() -> None:
    assert sealed_name("acme", KEY) != sealed_name("acme", KEY)
