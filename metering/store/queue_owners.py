"""Whose a queued event is: what an entry needs of its organisation, remembered for a minute."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from metering.errors import OrgNotFound
from metering.store.boxes import opened, shut
from metering.store.fields import sealed_name
from metering.store.orgs import OrgChange, Orgs

REMEMBERED_S: Final = 60.0
"""How long an erased organisation's key may still be known here."""

_REMEMBERED_MAX: Final = 20_000
"""Organisations remembered, about 0.5 KB each; all are forgotten together when there are more."""

_PURPOSE: Final = b"queued for"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Owner:
    """An organisation as entries name it: `name` for everybody, `to` for whoever counts."""

    org_id: str
    data_key: bytes = field(repr=False)
    name: str
    to: str


class Owners:
    """Finds owners. `secret` is the data set's; `monotonic` a stopwatch in seconds."""

    def __init__(self, orgs: Orgs, secret: bytes, monotonic: Callable[[], float], *, auto_create: bool) -> None:
        self._orgs, self._monotonic, self._auto_create = orgs, monotonic, auto_create
        self._key = blake2b(key=secret, person=b"queue", digest_size=_KEY_BYTES).digest()
        self._known: dict[str, tuple[Owner, float]] = {}
        self._names: dict[bytes, str] = {}

    async def sender(self, org_id: str, actor: str) -> Owner:
        """Who sends an event; made like any organisation at its first event where there is none.

        It must be there before its first entry: only then has it a data key, and only while it has one can the entry
        be read. Raises OrgNotFound and the 503 problems.
        """
        known = self._remembered(org_id)
        if known is not None:
            return known
        org, _ = await self._orgs.update(org_id, OrgChange(), actor=actor, create=self._auto_create)
        if org is None:
            raise OrgNotFound
        return self._remember(org_id, org.profile.data_key)

    async def owner(self, to: bytes) -> Owner | None:
        """Whose the entry is that carries `to`; None where that organisation is gone. Raises Unreadable, 503s."""
        org_id = self._opened(to)
        known = self._remembered(org_id)
        if known is not None:
            return known
        org = await self._orgs.living(org_id)
        return None if org is None else self._remember(org_id, org.profile.data_key)

    def forget(self, org_id: str) -> None:
        """Ask the store again for this organisation."""
        self._known.pop(org_id, None)

    def _opened(self, to: bytes) -> str:
        """The organisation that `to` names: senders write the same text for a minute."""
        org_id = self._names.get(to)
        if org_id is None:
            org_id = opened(to, self._key, _PURPOSE).decode()
            if len(self._names) >= _REMEMBERED_MAX:
                self._names.clear()
            self._names[to] = org_id
        return org_id

    def _remembered(self, org_id: str) -> Owner | None:
        owner, until_s = self._known.get(org_id, (None, 0.0))
        return owner if self._monotonic() < until_s else None

    def _remember(self, org_id: str, data_key: bytes) -> Owner:
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        to = shut(org_id.encode(), self._key, _PURPOSE)
        owner = Owner(org_id, data_key, sealed_name(org_id, data_key), to)
        self._known[org_id] = (owner, self._monotonic() + REMEMBERED_S)
        return owner
