"""How sensitive values rest in the store: a codec for what is written again, the organisation's own key for the rest.

A value carries its scheme as prefix, so that values of different times stand side by side:

- `p.<text>`: as it is; the store's own disk protects it. What is written without ENCRYPTION_KEYS.
- `v1.<key id>.<box>`: AES-256-GCM under a key of ENCRYPTION_KEYS.
- `d.<box>`: AES-256-GCM under the organisation's data key, which rests under one of the two above. An entry of a stream
  is never written again, so another key of ENCRYPTION_KEYS must not mean another box for it.

Both kinds of boxes are bound to organisation and field: moved elsewhere they do not open.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metering.encryption_errors import EncryptionKeyUnknown

PLAIN: Final = "p"
BOXED: Final = "v1"
_OWN: Final = "d"

_NONCE_BYTES: Final = 12
"""NIST SP 800-38D: 96 bits, random; so one key of the ring is good for 2^32 values (8.3)."""

_STRIPE_ID: Final = re.compile(
    r"\b(cus|sub|si|in|ii|il|pi|pm|card|seti|ch|py|re|pyr|du|dp|cs|txn)_(?=\w*[A-Z0-9])\w{4,}", re.ASCII
)
"""Ids of customers and of what they buy, pay and get back: https://docs.stripe.com/api."""

Ring = Sequence[tuple[str, bytes]]
"""Keys of 32 bytes with their ids: the first encrypts, all of them decrypt."""

log = structlog.get_logger(__name__)


class FieldCodec:
    """Encodes one field of one organisation under the first key of a ring; without keys as it is (scheme `p`)."""

    def __init__(self, ring: Ring = ()) -> None:
        self._boxes = {key_id: AESGCM(key) for key_id, key in ring}
        self.current = next(iter(self._boxes), None)
        """The id of the key that encrypts; None: nothing is encrypted."""

    def encode(self, org: str, field: str, text: str) -> str:
        """The text as stored for this organisation and field."""
        if self.current is None:
            return f"{PLAIN}.{text}"
        box = _shut(self._boxes[self.current], text, (org, field, self.current))
        return f"{BOXED}.{self.current}.{box}"

    def decode(self, org: str, field: str, stored: str, data_key: bytes | None = None) -> str:
        """The text again; it takes the organisation's data key where that encrypted it (see `own_text`).

        Raises EncryptionKeyUnknown (503) for a key that is not in the ring; ValueError for a scheme this version does
        not know, and for a box that was changed, or was made for another organisation or field.
        """
        scheme, _, rest = stored.partition(".")
        if scheme == PLAIN:
            return rest
        if scheme == _OWN and data_key is not None:
            return _opened(AESGCM(data_key), rest, (org, field))
        if scheme != BOXED:
            raise ValueError(f"field {field} of {org} is stored under an unknown scheme {stored[:2]!r}")
        key_id, _, box = rest.partition(".")
        if key_id not in self._boxes:
            log.error("encryption key unknown", org=org, field=field, key=key_id)
            raise EncryptionKeyUnknown
        return _opened(self._boxes[key_id], box, (org, field, key_id))

    def decode_bare(self, org: str, field: str, stored: str) -> str:
        """As `decode`, of a field whose older values are there without a scheme."""
        return self.decode(org, field, stored) if "." in stored else stored


def key_id_of(stored: str) -> str:
    """Under which key a value of the codec rests: its id; '' for one that is not encrypted."""
    scheme, _, rest = stored.partition(".")
    return rest.partition(".")[0] if scheme == BOXED else ""


def own_text(org: str, field: str, text: str, data_key: bytes) -> str:
    """The text as an entry of a stream holds it: a box under the organisation's data key."""
    return f"{_OWN}.{_shut(AESGCM(data_key), text, (org, field))}"


def is_own(stored: str) -> bool:
    """Whether it takes the organisation's data key to read a value."""
    return stored.startswith(f"{_OWN}.")


def without_ids(text: str) -> str:
    """Words of Stripe's without the ids in them: whose they are stands beside them anyway."""
    return _STRIPE_ID.sub(r"\1_***", text)


def _shut(key: AESGCM, text: str, bound: Iterable[str]) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = nonce + key.encrypt(nonce, text.encode(), _bound_to(bound))
    return base64.urlsafe_b64encode(box).decode().rstrip("=")


def _opened(key: AESGCM, box: str, bound: Iterable[str]) -> str:
    try:
        raw = base64.urlsafe_b64decode(box + "=" * (-len(box) % 4))
        return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(bound)).decode()
    except (InvalidTag, binascii.Error, ValueError) as error:
        org, field, *_ = bound
        raise ValueError(f"field {field} of {org} does not open: it was changed, or made for another place") from error


def _bound_to(parts: Iterable[str]) -> bytes:
    """What a box is bound to. None of the parts holds a zero byte, so no two lists of them come to the same."""
    return b"\0".join(part.encode() for part in parts)


def new_data_key() -> bytes:
    """A fresh key of an organisation. Deleting it makes its entries in shared streams unreadable."""
    return secrets.token_bytes(32)


def pseudonym(org: str, data_key: bytes) -> str:
    """The organisation's name in shared streams: 24 hex digits, the same for as long as its data key lives."""
    return hmac.new(data_key, org.encode(), hashlib.sha256).hexdigest()[:24]


def sealed_name(org: str, data_key: bytes) -> str:
    """What shared streams carry in place of the id: `<pseudonym>.<the id, AES-256-GCM under the data key>`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = nonce + AESGCM(data_key).encrypt(nonce, org.encode(), b"org")
    return f"{pseudonym(org, data_key)}.{base64.urlsafe_b64encode(box).decode()}"


def opened_name(sealed: str, data_key: bytes) -> str:
    """The id again. Raises cryptography's InvalidTag when the key is not the organisation's."""
    box = base64.urlsafe_b64decode(sealed.partition(".")[2])
    return AESGCM(data_key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], b"org").decode()
