"""Sensitive values at rest, and names in shared streams that only the organisation's key opens."""

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from metering.store.fields import FieldCodec, new_data_key, opened_name, pseudonym, sealed_name

KEY = bytes(range(32))


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
