"""The API keys of a data set: make them, list them, end them, and tell who calls with one.

A key lies in the partition of its organisation, so that it, the list and the trail entry are written by one script.
Ending one then raises the epoch (`store/withdrawn`), which every worker looks at: a worker that dies in between leaves
a key that other workers may still remember for `auth.CACHE_S`; whoever repeats the call raises the epoch again.
"""

import hmac
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.auth import Caller, Verified, refused
from metering.clock import Clock
from metering.erasure_errors import OrgErased
from metering.errors import InternalError, OrgCorrupt, OrgNotFound, Problem, TooManyKeys
from metering.store.api_key import PREFIXES, ApiKey, NewKey, digest_of, fields_of, id_of, member, new_text, parsed
from metering.store.connect import answered, texts
from metering.store.keys import Keys, key_partition
from metering.store.org import ERASED
from metering.store.scripts import script
from metering.store.totals import replies_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEYS_MAX: Final = 1000
"""Keys of one owner: enough for a key each of the largest team's services, too few to fill a store."""

MARK_MS: Final = 30 * 86_400_000
"""How long a deleted key is known to have been there, so that deleting it again is answered as the first time."""

USES_S: Final = 60.0
"""Between two turns of the job that notes which keys were used."""

USED_AGAIN_MS: Final = 600_000
"""A use is noted when it is this much later than the one noted before: some hundred bytes of the store's file."""

_KEPT, _FULL, _TAKEN, _NO_ORG = 1, 2, 3, 0

_UNKNOWN: Final = "no API key like this"
_NOBODY: Final = "0" * 64
"""Stands for the digest of a key that is not there: no text has it."""

log = structlog.get_logger(__name__)


class ApiKeys:
    """The keys of one data set; a `metering.auth.Verifier`. Errors of the store come out as 503 problems.

    `live` says which prefix new keys get. `withdrew` is called after a key was ended. An owner has at most `most`.
    """

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        clock: Clock,
        *,
        live: bool,
        withdrew: Callable[[], Awaitable[None]],
        fake: bool,
        most: int = KEYS_MAX,
    ) -> None:
        self._client: Any = client
        self._keys = keys
        self._clock = clock
        self._live = live
        self._withdrew = withdrew
        self._most = most
        self._used: dict[str, int] = {}
        self._create = client.register_script(script("create_key", fake=fake).text)
        self._delete = client.register_script(script("delete_key", fake=fake).text)
        self._touch = client.register_script(script("touch_keys", fake=fake).text)

    # ── who calls ────────────────────────────────────────────────────────────────────────────────────────

    async def verify(self, token: str) -> Verified | None:
        """Who calls with the key; None where it does not begin as one. Raises Unauthenticated and the 503 problems.

        What is wrong is not told apart, but for a key that has expired, of which only its holder learns.
        """
        if not token.startswith(PREFIXES):
            return None
        key = await self._known(id_of(token))
        same = hmac.compare_digest(digest_of(token), _NOBODY if key is None else key.digest)
        if key is None or not same:
            raise refused(_UNKNOWN)
        now_ms = self._clock.now_ms()
        if key.expires_ms is not None and key.expires_ms <= now_ms:
            raise refused("the API key has expired")
        if key.org_id is not None and not await self._lives(key.org_id):
            raise refused(_UNKNOWN)  # the organisation was erased; the key must not make it anew
        if key.used_ms is None or now_ms - key.used_ms >= USED_AGAIN_MS:
            self._used[key.key_id] = now_ms
        caller = Caller(f"key:{key.key_id}", key.org_id, frozenset(key.scopes))
        return Verified(caller, math.inf if key.expires_ms is None else key.expires_ms)

    async def note_uses(self) -> None:
        """Write down which keys were used since the last turn. Raises the 503 problems; what was not noted is lost."""
        used, self._used = self._used, {}
        by_partition: dict[int, list[str]] = defaultdict(list)
        for key_id in used:
            by_partition[key_partition(key_id)].append(key_id)
        for key_ids in by_partition.values():
            keys = [self._keys.api_key(key_id) for key_id in key_ids]
            await answered(self._touch(keys=keys, args=[used[key_id] for key_id in key_ids]))

    # ── making and ending ────────────────────────────────────────────────────────────────────────────────

    async def create(self, wanted: NewKey, *, actor: str) -> tuple[ApiKey, str]:
        """Make a key; it and its text, which nobody can read again.

        Raises OrgNotFound, OrgErased where its organisation does not exist; TooManyKeys where the owner has as many as
        it may.
        """
        code, created = await self._made(wanted, actor)
        if code == _TAKEN or (code == _FULL and await self._drop_expired(wanted.owner)):
            code, created = await self._made(wanted, actor)
        if code == _NO_ORG:
            raise await self._missing(wanted.owner)
        if code == _FULL:
            raise TooManyKeys(f"{self._most} API keys are there already")
        if created is None:
            raise InternalError("two new ids of 64 random bits were taken")
        return created

    async def _made(self, wanted: NewKey, actor: str) -> tuple[int, tuple[ApiKey, str] | None]:
        """What create_key.lua says, and the key where it was kept."""
        org_id, owner = wanted.org_id, wanted.owner
        partition = secrets.randbelow(self._keys.partitions) if org_id is None else self._keys.partition(org_id)
        key_id, text = new_text(partition, live=self._live)
        stored = fields_of(wanted, live=self._live, made_by=actor)
        keys = [self._keys.api_key(key_id), *self._shared(partition)]
        if org_id is not None:
            keys += [self._keys.record(org_id), self._keys.trail(org_id)]
        fields = [part for pair in stored.items() for part in pair]
        entry = ("key_created", *_told(key_id, wanted, actor))
        args: list[Any] = [
            digest_of(text),
            member(owner, key_id),
            *bounds(owner),
            self._most,
            len(fields),
            *fields,
            *entry,
        ]
        code, created_ms = await answered(self._create(keys=keys, args=args))
        if code != _KEPT:
            return code, None
        whole = {**stored, "digest": digest_of(text), "created": str(created_ms)}
        return code, (parsed(key_id, whole), text)

    async def owner_of(self, key_id: str) -> str | None:
        """Whose the key is, or was until lately: an organisation, or "" for administrators. None: there is none."""
        key = await self._known(key_id)
        if key is not None:
            return key.owner
        if key_partition(key_id) >= self._keys.partitions:
            return None
        mark = await answered(self._client.get(self._keys.ended_key(key_id)))
        return None if mark is None else mark.decode()

    async def delete(self, key_id: str, *, actor: str) -> None:
        """End a key; a key that is not there stays so. Every worker is told in both cases."""
        key = await self._known(key_id)
        if key is not None:
            await self._ended(key, "key_deleted", actor)
        await self._withdrew()

    async def _ended(self, key: ApiKey, kind: str, actor: str | None) -> None:
        partition, org_id = key_partition(key.key_id), key.org_id
        keys = [self._keys.api_key(key.key_id), self._keys.ended_key(key.key_id), *self._shared(partition)]
        if org_id is not None:
            keys.append(self._keys.trail(org_id))
        entry = (kind, *_told(key.key_id, key, actor))
        await answered(self._delete(keys=keys, args=[member(key.owner, key.key_id), key.owner, MARK_MS, *entry]))

    async def _drop_expired(self, owner: str) -> bool:
        """End the owner's keys that have expired; whether there were any. Nobody remembers those any more."""
        keys, _ = await self.page(owner, None, self._most) if owner else ([], None)
        now_ms = self._clock.now_ms()
        expired = [key for key in keys if key.expires_ms is not None and key.expires_ms <= now_ms]
        for key in expired:
            await self._ended(key, "key_expired", None)
        return bool(expired)

    # ── listing ──────────────────────────────────────────────────────────────────────────────────────────

    async def page(self, owner: str | None, cursor: str | None, limit: int) -> tuple[list[ApiKey], str | None]:
        """Up to `limit` keys of an owner (None: of all) after `cursor` (from the page before), and the next cursor.

        Raises OrgNotFound, OrgErased where the owner does not exist.
        """
        if owner and not await self._lives(owner):
            raise await self._missing(owner)
        partitions = [self._keys.partition(owner)] if owner else list(range(self._keys.partitions))
        after, _, owner_after = (cursor or "").partition(".")
        members: list[str] = []
        for partition in partitions:
            low, high = ("-", "+") if owner is None else bounds(owner)
            if after and partition == key_partition(after):
                low = f"({member(owner_after if owner is None else owner, after)}"
            if (after and partition < key_partition(after)) or len(members) > limit:
                continue
            name = self._keys.shared("api_keys", partition)
            found = await answered(self._client.zrangebylex(name, low, high, 0, limit + 1 - len(members)))
            members += [one.decode() for one in found]
        more = len(members) > limit
        owner_last, _, last = members[limit - 1].partition("|") if more else ("", "", "")
        return await self._listed(members[:limit]), f"{last}.{owner_last}" if more else None

    async def ids_of(self, owner: str, limit: int) -> list[str]:
        """Up to `limit` ids of an owner's keys, also of one that was erased."""
        name = self._keys.shared("api_keys", self._keys.partition(owner))
        found = await answered(self._client.zrangebylex(name, *bounds(owner), 0, limit))
        return [one.decode().partition("|")[2] for one in found]

    async def unlist(self, owner: str, key_ids: Sequence[str]) -> None:
        """Take keys that were ended off the list, also one that was listed and not there."""
        name = self._keys.shared("api_keys", self._keys.partition(owner))
        await answered(self._client.zrem(name, *(member(owner, key_id) for key_id in key_ids)))

    async def _lives(self, org_id: str) -> bool:
        """Whether there is such an organisation: of an erased one nothing but its mark is left, which has no plan."""
        return bool(await answered(self._client.hexists(self._keys.record(org_id), "plan")))

    async def _missing(self, org_id: str) -> Problem:
        """Why there is no such organisation."""
        erased = await answered(self._client.hexists(self._keys.record(org_id), ERASED))
        return OrgErased() if erased else OrgNotFound()

    async def _listed(self, members: Sequence[str]) -> list[ApiKey]:
        """The keys of a page, without those that were ended meanwhile."""
        key_ids = [name.partition("|")[2] for name in members]
        pipe = self._client.pipeline(transaction=False)
        for key_id in key_ids:
            pipe.hgetall(self._keys.api_key(key_id))
        stored = await replies_of(pipe, spare=True) if key_ids else []
        found = (self._parsed(key_id, raw or {}) for key_id, raw in zip(key_ids, stored, strict=True))
        return [key for key in found if key is not None]

    async def _known(self, key_id: str | None) -> ApiKey | None:
        """The key, or None. An id of a partition that does not exist is asked of nobody."""
        if key_id is None or key_partition(key_id) >= self._keys.partitions:
            return None
        try:
            stored = await answered(self._client.hgetall(self._keys.api_key(key_id)))
        except OrgCorrupt:
            stored = {b"": b""}  # another type than a hash: no organisation's fault, and nobody's credential
        return self._parsed(key_id, stored)

    def _parsed(self, key_id: str, raw: dict[bytes, bytes]) -> ApiKey | None:
        """A stored key; one of an unknown shape is none, so that nobody gets in with it."""
        if not raw:
            return None
        try:
            return parsed(key_id, texts(raw))
        except (KeyError, ValueError):
            log.warning("API key left out: it is stored in an unknown shape", key_id=key_id)
            return None

    def _shared(self, partition: int) -> list[str]:
        return [self._keys.shared(name, partition) for name in ("api_keys", "totals", "clock")]


def bounds(owner: str) -> tuple[str, str]:
    """The part of a list that is an owner's, as the store takes it."""
    return f"[{owner}|", f"({owner}}}"


def _told(key_id: str, key: NewKey, actor: str | None) -> list[str]:
    """The trail's words for a key: who did it (None: the service by itself), and which. Never its text."""
    who = [] if actor is None else ["actor", actor]
    return [*who, "key_id", key_id, "name", key.name, "scopes", " ".join(key.scopes)]
