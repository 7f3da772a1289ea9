"""Boxes: text that rests in a shared stream and that one key opens."""

import base64
import binascii
import secrets
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
"""Each box has a key of its own, made of the given one and a random salt, so the nonce need not differ. With random
nonces under one key there could be 2^32 boxes (NIST SP 800-38D 8.3): a busy organisation's month."""


class Unreadable(Exception):
    """The box was not shut with this key and for this purpose, or has been changed."""


def shut(text: bytes, key: bytes, purpose: bytes) -> str:
    """`text`, AES-256-GCM under `key` (32 bytes), as base64.

    `purpose` (16 bytes at most) keeps kinds of boxes apart.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    sealed = salt + AESGCM(_key(salt, key, purpose)).encrypt(_NONCE, text, purpose)
    return binascii.b2a_base64(sealed, newline=False).decode()


def opened(box: str | bytes, key: bytes, purpose: bytes) -> bytes:
    """The text again. Raises Unreadable."""
    try:
        sealed = base64.b64decode(box, validate=True)
        salt = sealed[:_SALT_BYTES]
        return AESGCM(_key(salt, key, purpose)).decrypt(_NONCE, sealed[_SALT_BYTES:], purpose)
    except (InvalidTag, ValueError) as error:
        raise Unreadable from error


def _key(salt: bytes, key: bytes, purpose: bytes) -> bytes:
    """The key of one box. Raises ValueError when the salt is cut off."""
    if len(salt) != _SALT_BYTES:
        raise ValueError("the box is too short")
    return blake2b(key=key, salt=salt, person=purpose, digest_size=_KEY_BYTES).digest()
