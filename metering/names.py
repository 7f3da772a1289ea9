"""What ids and names may look like on the wire. The patterns serve the models, the hot path and the document."""

import re
from typing import Final

from plans.catalogue import NAME_PATTERN

ORG_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

FEATURE_PATTERN: Final = NAME_PATTERN

TEXT_CHARS_MAX: Final = 255

TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+$"
"""Ids that callers make up (event_id, source, actor): any Unicode text without control characters, line
separators and marks that turn the reading direction, which could forge what a log shows. Compared code point
by code point: two spellings of one letter are two ids."""

RESERVED: Final = frozenset({"adjustments", "batch", "history", "query", "stream", "track"})
"""Words that stand, or will, where an org id could in a path: no organisation may be called so."""

_org_id = re.compile(ORG_ID_PATTERN[1:-1]).fullmatch
_feature = re.compile(FEATURE_PATTERN[1:-1]).fullmatch
_text = re.compile(TEXT_PATTERN[1:-1]).fullmatch


def is_org_id(text: str) -> bool:
    """Whether `text` can name an organisation."""
    return _org_id(text) is not None and text not in RESERVED


def is_feature(text: str) -> bool:
    """Whether `text` can name a feature (the catalogue says whether it does)."""
    return _feature(text) is not None


def is_text(text: str) -> bool:
    """Whether `text` can be an id of the caller's making: 1 to 255 characters of TEXT_PATTERN."""
    return 0 < len(text) <= TEXT_CHARS_MAX and ((text.isascii() and text.isprintable()) or _text(text) is not None)
