"""An API key: its text, which is shown once, and what the store holds of it.

The text is `mk_live_<id>_<secret>` (`mk_test_` where nothing is billed): the id says where the key lies, the secret is
256 random bits. The store holds SHA-256 of the whole text; bits that nobody can guess need no slower hash.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from metering.auth import ADMIN
from metering.store.keys import KEY_ID_PATTERN, key_id_in

PREFIXES: Final = ("mk_live_", "mk_test_")
"""What every key begins with: the first where it may cost money, the second elsewhere."""

SECRET_BYTES: Final = 32

_ID_BYTES: Final = 8
_TEXT: Final = re.compile(rf"mk_(?:live|test)_({KEY_ID_PATTERN[1:-1]})_[0-9a-f]{{{2 * SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be made. `expires_ms` None: it holds until it is deleted."""

    name: str
    org_id: str | None
    scopes: Sequence[str]
    expires_ms: int | None = None

    @property
    def owner(self) -> str:
        """Who sees the key: its organisation, or administrators alone ("") where it may do what they may."""
        return "" if self.org_id is None or ADMIN in self.scopes else self.org_id


@dataclass(frozen=True, slots=True)
class ApiKey(NewKey):
    """A key that is there. `used_ms` is when it was last used, to about ten minutes; None: never yet."""

    key_id: str = ""
    live: bool = True
    made_by: str = ""
    created_ms: int = 0
    used_ms: int | None = None
    digest: str = field(default="", repr=False)


def new_text(partition: int, *, live: bool) -> tuple[str, str]:
    """The id of a new key in `partition`, and its text."""
    key_id = key_id_in(partition, secrets.token_hex(_ID_BYTES))
    return key_id, f"{PREFIXES[0 if live else 1]}{key_id}_{secrets.token_hex(SECRET_BYTES)}"


def id_of(text: str) -> str | None:
    """The id of the key with this text; None where it cannot be the text of one."""
    found = _TEXT.fullmatch(text)
    return None if found is None else found[1]


def digest_of(text: str) -> str:
    """What the store holds of a key's text."""
    return sha256(text.encode()).hexdigest()


def fields_of(key: NewKey, *, live: bool, made_by: str) -> dict[str, str]:
    """A key as stored, without what the script writes by itself: digest, created, used."""
    fields = {"name": key.name, "scopes": " ".join(key.scopes), "live": "1" if live else "0", "made_by": made_by}
    if key.org_id is not None:
        fields["org"] = key.org_id
    if key.expires_ms is not None:
        fields["expires"] = str(key.expires_ms)
    return fields


def parsed(key_id: str, stored: Mapping[str, str]) -> ApiKey:
    """Read a key. Raises KeyError or ValueError when the stored shape is not one this version wrote."""
    expires, used = stored.get("expires"), stored.get("used")
    return ApiKey(
        name=stored["name"],
        org_id=stored.get("org"),
        scopes=tuple(stored["scopes"].split()),
        expires_ms=None if expires is None else int(expires),
        key_id=key_id,
        live=stored["live"] == "1",
        made_by=stored["made_by"],
        created_ms=int(stored["created"]),
        used_ms=None if used is None else int(used),
        digest=stored["digest"],
    )


def key_laws(stored: Mapping[str, Mapping[str, str]]) -> tuple[set[str], set[str]]:
    """Of the keys of a partition by id: what its list has to hold, and the organisations that have to exist.

    Raises KeyError or ValueError for a key that cannot be read.
    """
    keys = [parsed(key_id, fields) for key_id, fields in stored.items()]
    return {member(key.owner, key.key_id) for key in keys}, {key.org_id for key in keys if key.org_id is not None}


def member(owner: str, key_id: str) -> str:
    """A key in the list of its partition; no id of an organisation holds a bar."""
    return f"{owner}|{key_id}"
