"""Takes away what an erased organisation left behind: its keys, what names it elsewhere, and then the store's file.

Every step may be repeated, so a worker that dies in between costs time alone. Deleted values stay in the append-only
file, and in the store's log of slow commands, until they are rewritten: https://valkey.io/commands/bgrewriteaof.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final

import structlog
from redis.exceptions import NoPermissionError, ResponseError

from metering.errors import ClockUnsafe, LedgerFull, Overloaded, Problem, StorageUnavailable
from metering.store.api_keys import ApiKeys
from metering.store.connect import StoreError, answered, problem_of, text_of
from metering.store.erasure import Erasure, Erasures
from metering.store.keys import Keys
from metering.store.mentions import Mentions
from metering.store.org_keys import keys_of
from metering.store.totals import Client

REMOVE_S: Final = 10.0
"""Between two looks for what is left of erased organisations."""

_LEASE_S: Final = 60
"""For how long one worker alone takes away; longer than any pause between its steps."""

_PAUSE_S: Final = 0.1
_CHUNK: Final = 256
_PAGE: Final = 200

_LOOKS_MAX: Final = 5
"""The second finds nothing unless somebody was writing."""

_AWAY: Final = (StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe)
"""Problems of the store, which every organisation would meet."""


class Files(StrEnum):
    """What became of the store's own file."""

    REWRITTEN = "rewritten"
    NONE = "none"  # the store keeps nothing on disk by itself
    REFUSED = "refused"  # it does not let us: an operator does it, or waits until it happens by itself


log = structlog.get_logger(__name__)


class Removal:
    """The job of one data set. `worker` names this one, `now_ms` is the store's effective time.

    Errors of the store come out as 503 problems.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        erasures: Erasures,
        api_keys: ApiKeys,
        now_ms: Callable[[], Awaitable[int]],
        worker: str,
    ) -> None:
        self._client: Any = client
        self._keys, self.erasures, self._api_keys = keys, erasures, api_keys
        self._mentions = Mentions(client, keys)
        self._lease, self._worker, self._now_ms = keys.shared("eraser", 0), worker, now_ms

    @property
    def woken(self) -> asyncio.Event:
        """Set when somebody asked this worker for an erasure."""
        return self.erasures.woken

    async def turn(self) -> None:
        """Take away what is left, of all that were erased; one worker does. Raises the 503 problems."""
        names = await self._waiting()
        if not names or not await answered(self._client.set(self._lease, self._worker, nx=True, ex=_LEASE_S)):
            return
        try:
            await self._finish([name for name in names if await self._remove(name)])
        finally:
            await answered(self._client.delete(self._lease))

    async def _waiting(self) -> list[str]:
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.zrange(self._keys.shared("erasing", partition), 0, _PAGE - 1)
        return [text_of(name) for found in await answered(pipe.execute()) for name in found]

    async def _finish(self, removed: list[str]) -> None:
        """What was removed goes out of the file too; then the marks say so."""
        files = await self._rewrite() if removed else None
        if files is None:
            return
        done = {"done": await self._now_ms(), "files": files.value}
        for org_id in removed:
            await answered(self._client.hset(self._keys.record(org_id), mapping=done))
            await answered(self._client.zrem(self._keys.shared("erasing", self._keys.partition(org_id)), org_id))
            log.info("organisation erased", org=org_id, files=files.value)

    # ── what belongs to it ───────────────────────────────────────────────────────────────────────────────

    async def _remove(self, org_id: str) -> bool:
        """Remove what one organisation left; False where it cannot be, and is tried again. No other waits for it."""
        try:
            erasure = await self.erasures.find(org_id)
            if erasure is not None and await self._all_of(erasure):
                return True
            code = "not-erased" if erasure is None else "others-write"
            log.warning("organisation not erased wholly", org=org_id, code=code)
        except _AWAY:
            raise
        except Problem as problem:
            log.warning("organisation not erased wholly", org=org_id, code=problem.code)
        return False

    async def _all_of(self, erasure: Erasure) -> bool:
        """Take away until a look finds nothing: whoever read it before it ended may have written behind a look."""
        for _ in range(_LOOKS_MAX):
            await self._end_keys(erasure)
            found = await self._mentions.remove(erasure.org_id, self._renew)
            if not found + await self._own(erasure.org_id):
                return True
        return False

    async def _own(self, org_id: str) -> int:
        """Remove its own keys; how many there were."""
        found = await keys_of(self._client, self._keys, org_id)
        names = [key for shape, some in found.items() for key in some if shape != "record"]
        for at in range(0, len(names), _CHUNK):
            await answered(self._client.unlink(*names[at : at + _CHUNK]))
            await self._renew()
        return len(names)

    async def _end_keys(self, erasure: Erasure) -> None:
        """End its API keys, on every worker at once. The trail that tells of it goes after them."""
        while key_ids := await self._api_keys.ids_of(erasure.org_id, _PAGE):
            for key_id in key_ids:
                await self._api_keys.delete(key_id, actor=erasure.by.actor)
            await self._api_keys.unlist(erasure.org_id, key_ids)
            await self._renew()

    # ── the store's file ─────────────────────────────────────────────────────────────────────────────────

    async def _rewrite(self) -> Files | None:
        """Have the store write its file anew and forget its slow commands. None where that failed, and is tried again.

        A rewrite that was under way may have read what was there before, so another one follows it.
        """
        try:
            forgot = await self._let(self._client.slowlog_reset)
            if not (await self._persistence())["aof_enabled"]:
                return Files.NONE if forgot else Files.REFUSED
            return await self._rewritten(forgot=forgot)
        except ResponseError as error:
            log.exception("the store could not rewrite its file", told=str(error))
            return None
        except StoreError as error:
            raise problem_of(error) from error

    async def _rewritten(self, *, forgot: bool) -> Files | None:
        while (await self._persistence())["aof_rewrite_in_progress"]:
            await self._pause()
        if not await self._let(self._client.bgrewriteaof):
            return Files.REFUSED
        while _busy(told := await self._persistence()):
            await self._pause()
        if told["aof_last_bgrewrite_status"] != "ok":
            log.error("the store could not rewrite its file", told="see its log")
            return None
        return Files.REWRITTEN if forgot else Files.REFUSED

    async def _let(self, command: Callable[[], Awaitable[Any]]) -> bool:
        """Run a command; False where the store does not let us, now and for ever."""
        try:
            await command()
        except ResponseError as refusal:
            if not isinstance(refusal, NoPermissionError) and "unknown command" not in str(refusal).lower():
                raise
            log.warning("the store refuses to forget", told=str(refusal))
            return False
        return True

    async def _persistence(self) -> dict[str, Any]:
        told: dict[str, Any] = await self._client.info("persistence")
        return told

    async def _pause(self) -> None:
        await self._renew()
        await asyncio.sleep(_PAUSE_S)

    async def _renew(self) -> None:
        await answered(self._client.expire(self._lease, _LEASE_S))


def _busy(told: dict[str, Any]) -> bool:
    """Whether a rewrite is under way or to come; one that cannot begin stays to come, and says that it failed."""
    scheduled = told["aof_rewrite_scheduled"] and told["aof_last_bgrewrite_status"] == "ok"
    return bool(told["aof_rewrite_in_progress"] or scheduled)
