"""The digests that stand for ids: what the sets of seen ids hold, and what a correction is checked against."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 8
"""64 bits: ten million ids of one organisation collide with a chance of 1e-5, and then as a 409, not as a loss."""

_ID: Final = b"%d:%b%d:%b%d:%b"
_CONTENT: Final = b"%d:%b%d;"
"""What is digested: every field after its length, so that no two ids or contents read the same."""

Ids = tuple[bytes, bytes]
"""The digest of an id, and of the id with its content."""

Content = Iterable[tuple[bytes, int]]
"""What an id stands for: the ordered list of (feature, requested quantity)."""


class Digests:
    """Makes the digests of one data set, keyed with its secret."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(key=secret, digest_size=_DIGEST_BYTES)

    def ids(self, org_id: str, source: str, event_id: str, content: Content, kind: bytes = b"") -> Ids:
        """The digests of an event, or of a correction of some `kind`: a word, and no event digests what begins so."""
        org, sender, name = org_id.encode(), source.encode(), event_id.encode()
        digest = self._keyed.copy()
        digest.update(kind + _ID % (len(org), org, len(sender), sender, len(name), name))
        first = digest.digest()
        for feature, quantity in content:
            digest.update(_CONTENT % (len(feature), feature, quantity))
        return first, digest.digest()


def digits(digest: bytes) -> bytes:
    """A digest as the scripts and the sets hold it: a signed integer in canonical digits."""
    return b"%d" % int.from_bytes(digest, "big", signed=True)


def shard_of(first: bytes) -> int:
    """The unsigned id digest, whose low bits choose the shard."""
    return int.from_bytes(first, "big")
