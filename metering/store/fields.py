"""How sensitive values rest in the store: one codec for every field, and the organisation's own key.

A value carries the name of its scheme as prefix, so that encrypted values can stand beside older ones.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PLAIN: Final = "p."
_NONCE_BYTES: Final = 12  # NIST SP 800-38D: 96 bits, random


class FieldCodec:
    """Encodes one field of one organisation. Scheme `p`: as it is; the store's own disk protects it."""

    def encode(self, org: str, field: str, text: str) -> str:  # noqa: ARG002 - schemes that encrypt bind them
        """The text as stored for this organisation and field."""
        return _PLAIN + text

    def decode(self, org: str, field: str, stored: str) -> str:
        """The text again. Raises ValueError for a scheme this version does not know."""
        if not stored.startswith(_PLAIN):
            raise ValueError(f"field {field} of {org} is stored under an unknown scheme {stored[:2]!r}")
        return stored[len(_PLAIN) :]


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
