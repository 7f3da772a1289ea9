"""Raw events: what a partition's stream keeps of an event besides the figures, readable with the organisation's key.

The stream is shared by the organisations of a partition, so it names none of them: an entry carries the pseudonym, and
whatever the caller said lies in a box under the data key. Deleting that key makes both unreadable.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from metering.usage import UsageEvent

_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
"""Each box has a key of its own, made of the data key and a random salt, so the nonce need not differ. With random
nonces under the data key itself an organisation could have 2^32 boxes (NIST SP 800-38D 8.3): a busy one's month."""

_PURPOSE: Final = b"raw event"


class Unreadable(Exception):
    """The box was not closed with this key, or has been changed."""


@dataclass(frozen=True, slots=True)
class Details:
    """What the caller said of an event besides its figures. `timestamp_ms` is the event's own time, if it had one."""

    event_id: str | None = None
    source: str = ""
    actor: str | None = None
    metadata: Mapping[str, Any] | None = None
    timestamp_ms: int | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)


def boxed(event: UsageEvent, data_key: bytes) -> str:
    """The details of `event`, AES-256-GCM under the organisation's key, as base64.

    `event.details` is the JSON object `{"actor": …, "metadata": …}`, or None.
    """
    said = {
        "event_id": event.event_id,
        "source": event.source,
        "timestamp": event.timestamp_ms,
        "dimensions": event.dimensions,
        "details": None if event.details is None else orjson.Fragment(event.details),
    }
    text = orjson.dumps({name: value for name, value in said.items() if value})
    salt = secrets.token_bytes(_SALT_BYTES)
    sealed = salt + AESGCM(_key(salt, data_key)).encrypt(_NONCE, text, _PURPOSE)
    return binascii.b2a_base64(sealed, newline=False).decode()


def opened(box: str, data_key: bytes) -> Details:
    """The details again. Raises Unreadable."""
    try:
        sealed = base64.b64decode(box, validate=True)
        salt = sealed[:_SALT_BYTES]
        said = orjson.loads(AESGCM(_key(salt, data_key)).decrypt(_NONCE, sealed[_SALT_BYTES:], _PURPOSE))
    except (InvalidTag, ValueError) as error:
        raise Unreadable from error
    details = said.get("details", {})
    return Details(
        event_id=said.get("event_id"),
        source=said.get("source", ""),
        actor=details.get("actor"),
        metadata=details.get("metadata"),
        timestamp_ms=said.get("timestamp"),
        dimensions=said.get("dimensions", {}),
    )


def _key(salt: bytes, data_key: bytes) -> bytes:
    """The key of one box. Raises ValueError when the salt is cut off."""
    if len(salt) != _SALT_BYTES:
        raise ValueError("the box is too short")
    return blake2b(key=data_key, salt=salt, person=_PURPOSE, digest_size=_KEY_BYTES).digest()
