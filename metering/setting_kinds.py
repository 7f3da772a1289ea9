"""Kinds of settings: what is more than a word or a number is checked here, and told in words."""

import base64
import binascii
import re
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from metering.address import AddressError, keys_address, store_address
from metering.moments import span_s

EVENT_RETENTION_MAX_S: Final = 400 * 86_400
"""A year and a month: enough to look into the same month of the year before. History keeps sums for longer."""

_SIGNING: Final = "whsec_"


_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_KEY_BYTES: Final = 32
"""AES-256."""

KEYS_TAKEN: Final = "id:key pairs with commas between them, a key being 32 random bytes in base64"

SANDBOX_KEY: Final = "sk_sandbox_"
"""First letters of the key of our own stand-in for Stripe."""


class StripeMode(StrEnum):
    """Which Stripe: our own stand-in, Stripe's test mode, the one that moves money, or none."""

    SANDBOX = "sandbox"
    TEST = "test"
    LIVE = "live"
    NONE = "not_configured"


def mode_of(key: SecretStr | None, *, livemode: bool | None) -> StripeMode:
    """Which Stripe a key is for, of which it is known whether it moves money."""
    if key is None:
        return StripeMode.NONE
    if livemode:
        return StripeMode.LIVE
    return StripeMode.SANDBOX if key.get_secret_value().startswith(SANDBOX_KEY) else StripeMode.TEST


def starts(*prefixes: str) -> AfterValidator:
    """Stripe marks each kind of key by its first letters: a swapped pair is told at once."""

    def check(value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not text.startswith(prefixes):
            raise ValueError(f"it does not begin with {' or '.join(prefixes)}")
        return value

    return AfterValidator(check)


def parts_of(value: SecretStr | None) -> tuple[str, ...]:
    """The secrets of a list with commas; a part that is empty is none."""
    text = "" if value is None else value.get_secret_value()
    return tuple(part.strip() for part in text.split(",") if part.strip())


def ring_of(text: str) -> tuple[tuple[str, bytes], ...]:
    """The keys of a list of `id:base64`, with their ids. Raises ValueError, which repeats no key."""
    found: dict[str, bytes] = {}
    for number, part in enumerate(text.split(","), 1):
        key_id, colon, encoded = part.strip().partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"part {number} of it does not begin with an id (letters, digits, - and _) and a colon")
        key = _key_bytes(encoded)
        if key is None or len(key) != _KEY_BYTES:
            raise ValueError(f"the key of part {number} is not {_KEY_BYTES} bytes in base64")
        if key_id in found or key in found.values():
            raise ValueError(f"part {number} has the id or the key of an earlier one")
        found[key_id] = key
    return tuple(found.items())


def _key_bytes(encoded: str) -> bytes | None:
    """What base64 says, of either alphabet, with its padding or without."""
    text = encoded.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _encryption_keys(value: SecretStr) -> SecretStr:
    ring_of(value.get_secret_value())
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("it is not a power of two")
    return value


def _store_url(value: SecretStr) -> SecretStr:
    try:
        store_address(value.get_secret_value(), database=0)
    except AddressError as error:
        raise ValueError(str(error)) from error
    return value


def _retention(value: str) -> str:
    if span_s(value) > EVENT_RETENTION_MAX_S:
        raise ValueError("it is more than 400d")
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it is not an http or https URL")
    return value.rstrip("/")


def _signing_secrets(value: SecretStr) -> SecretStr:
    """Anybody can sign with a secret that says nothing, so that one is none."""
    parts = parts_of(value)
    if not parts or not all(part.startswith(_SIGNING) and len(part) > len(_SIGNING) for part in parts):
        raise ValueError(f"a part of it does not begin with {_SIGNING}, or says nothing more")
    return value


Upper = BeforeValidator(_upper)
PowerOfTwo = AfterValidator(_power_of_two)
Text = Annotated[str, Field(min_length=1, max_length=500)]
Retention = Annotated[str, AfterValidator(_retention)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
StoreUrl = Annotated[SecretStr, AfterValidator(_store_url)]
KeysUrl = Annotated[str, AfterValidator(keys_address)]
SigningSecrets = Annotated[SecretStr, AfterValidator(_signing_secrets)]
EncryptionKeys = Annotated[SecretStr, AfterValidator(_encryption_keys)]
