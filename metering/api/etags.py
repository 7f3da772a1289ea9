"""ETags of configuration, and the conditions that requests set with them (RFC 9110, sections 8.8.3 and 13.1).

A tag is a digest of what people set. What counters do leaves it alone, so that usage never stands in the way of a
change. Reads heed If-None-Match, changes If-Match and If-None-Match.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson

from metering.api.bodies import fault
from metering.errors import Invalid, PreconditionFailed

TAG_PATTERN: Final = r'(?:W/)?"[!#-~]*"'
TAGS_PATTERN: Final = rf"^(?:\*|{TAG_PATTERN}(?:, ?{TAG_PATTERN})*)$"
"""What the document shows; read are also tabs and more blanks between tags, and tags of other servers' bytes."""

_TAG: Final = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS: Final = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_ONE_TAG: Final = re.compile(_TAG)

_DIGEST_BYTES: Final = 12
"""96 bits: two configurations that somebody mistakes for each other are not going to happen."""


def etag_of(content: Mapping[str, Any]) -> str:
    """The strong tag of what JSON can hold; the same for the same content, whatever the order of its keys."""
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return f'"{blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()}"'


@dataclass(frozen=True, slots=True)
class Tags:
    """What one of the two headers says: `any` for `*`, else tags as they were sent."""

    any: bool
    listed: tuple[str, ...] = ()

    def match(self, etag: str | None, *, weakly: bool) -> bool:
        """Whether `etag` (None: there is nothing) is among them. A weak tag matches weakly only."""
        if etag is None or self.any:
            return etag is not None
        return etag in [tag.removeprefix("W/") if weakly else tag for tag in self.listed]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a request asks of the state it meets. False when it asks nothing."""

    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def check(self, etag: str | None) -> None:
        """Raises PreconditionFailed where a change may not go ahead; `etag` None: there is nothing yet."""
        if self.if_match is not None and not self.if_match.match(etag, weakly=False):
            raise _failed("If-Match names another state" if etag else "If-Match asks for what is not there", etag)
        if self.if_none_match is not None and self.if_none_match.match(etag, weakly=True):
            raise _failed("If-None-Match asks that it be not there, or not so", etag)

    def unchanged(self, etag: str) -> bool:
        """Whether a read need not be answered again: the caller has what `etag` names."""
        return self.if_none_match is not None and self.if_none_match.match(etag, weakly=True)


NO_CONDITIONS: Final = Conditions()


def conditions_of(raw: Sequence[tuple[bytes, bytes]]) -> Conditions:
    """The conditions that a request's headers set. Raises Invalid."""
    return Conditions(_tags(raw, "If-Match"), _tags(raw, "If-None-Match"))


def _tags(raw: Sequence[tuple[bytes, bytes]], name: str) -> Tags | None:
    """The tags of one header, which may stand on several lines."""
    lines = [value.decode("latin-1").strip(" \t") for header, value in raw if header == name.lower().encode()]
    if not lines:
        return None
    text = ", ".join(lines)
    if text == "*":
        return Tags(any=True)
    if not _TAGS.fullmatch(text):
        reason = "it is * or a list of ETags, each in its quotes as GET gave it"
        raise Invalid(f"the {name} header: {reason}", errors=[fault("", name.lower(), reason)])
    return Tags(any=False, listed=tuple(_ONE_TAG.findall(text)))


def _failed(detail: str, etag: str | None) -> PreconditionFailed:
    return PreconditionFailed(detail, headers={} if etag is None else {"ETag": etag})
