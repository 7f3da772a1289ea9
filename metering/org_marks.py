"""What the log shows of an organisation: its id, a mark in its place, or nothing.

Ids may be personal: an organisation may be one person. A mark finds all lines of one organisation, in every worker and
replica of a data set, and says nothing to whoever does not hold the data set's secret.
"""

import hashlib
import hmac
import re
from typing import Final

HIDDEN: Final = "[hidden]"
"""What stands in lines that want a mark before the data set is open."""

_MARK: Final = re.compile("o_[0-9a-f]{16}")
_PURPOSE: Final = b"log:"
_DIGITS: Final = 16
"""64 bits: two of a million organisations share a mark once in 37 million data sets."""


def mark_of(org_id: str, secret: bytes) -> str:
    """The organisation's mark, `o_` and 16 hex digits, under the data set's `secret`."""
    return "o_" + hmac.new(secret, _PURPOSE + org_id.encode(errors="replace"), hashlib.sha256).hexdigest()[:_DIGITS]


def is_mark(text: str) -> bool:
    """Whether `text` has the shape of a mark."""
    return _MARK.fullmatch(text) is not None


class OrgMarks:
    """Shows organisations as a setting says: `id`, `hash` or `none`. Marks want the secret that `learn` brings."""

    def __init__(self, shows: str = "id") -> None:
        self._shows = shows
        self._secret: bytes | None = None

    def learn(self, secret: bytes) -> None:
        """Make marks under this secret from now on."""
        self._secret = secret

    def __call__(self, org_id: str) -> str | None:
        """What a line shows; None: nothing."""
        return org_id if self._shows == "id" else self.abroad(org_id)

    def abroad(self, org_id: str) -> str | None:
        """What others than the operator are told: never an id."""
        if self._shows == "none":
            return None
        return HIDDEN if self._secret is None else mark_of(org_id, self._secret)
