"""What was withdrawn: every worker looks once a second, and forgets whom it knew when anything was.

One hash holds how often a credential was withdrawn (`epoch`) and how often a token's id was denied (`denials`). A
worker that finds another epoch than before reads the denied ids anew where those changed, then trusts nothing that it
verified earlier. It costs a request nothing: the ids are in memory, and keys are read when they are verified.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.clock import MS_PER_S, Clock
from metering.jwts import LEEWAY_S
from metering.store.connect import StoreError, problem_of
from metering.store.keys import Keys
from metering.store.scripts import script
from metering.store.timing import SKEW_MAX_MS

if TYPE_CHECKING:
    from redis.asyncio import Redis

LOOK_S: Final = 1.0
"""Between two looks: with the loops' jitter and a slow reply, withdrawn here is refused there within two seconds."""

PAGE: Final = 5_000
"""Denied ids of one read: some milliseconds of this worker and of the store."""

_FOR_EVER: Final = "inf"

_SLACK_MS: Final = LEEWAY_S * MS_PER_S + SKEW_MAX_MS
"""Added to a token's end: it is taken a little longer, and by machines whose clocks may differ."""

log = structlog.get_logger(__name__)


class Withdrawn:
    """What was withdrawn in one data set. `forget` is called when a worker may know somebody it should not.

    `quick` asks once, `patient` repeats what is safe to repeat. Errors of the store come out as 503 problems.
    """

    def __init__(
        self, quick: "Redis", patient: "Redis", keys: Keys, clock: Clock, *, forget: Callable[[], None], fake: bool
    ) -> None:
        self._quick: Any = quick
        self._patient: Any = patient
        self._clock = clock
        self._forget = forget
        self._epoch, self._denied = keys.shared("epoch", 0), keys.shared("denied", 0)
        self._seen: list[bytes | None] | None = None
        self._ids: frozenset[str] = frozenset()
        self._away = False
        self._deny = patient.register_script(script("deny", fake=fake).text)

    def denies(self, jti: str) -> bool:
        """Whether tokens with this id are refused, as far as this worker has seen."""
        return jti in self._ids

    async def open(self) -> None:
        """Read everything, before anybody is let in. Raises the 503 problems."""
        try:
            await self._look(self._patient)
        except StoreError as error:
            raise problem_of(error) from error

    async def look(self) -> None:
        """See whether anything was withdrawn since the last look. A store that is away is told once."""
        try:
            await self._look(self._quick)
        except StoreError as error:
            if not self._away:
                log.warning("what was withdrawn is not known for now", error=type(error).__name__)
            self._away = True
        else:
            self._away = False

    async def deny(self, jti: str, until_ms: int | None) -> int | None:
        """Refuse tokens with this id until `until_ms` (None: for ever), here at once; until when it holds now."""
        end = _FOR_EVER if until_ms is None else str(until_ms + _SLACK_MS)
        args: list[Any] = [self._clock.now_ms(), jti, end]
        try:
            until = await self._deny(keys=[self._epoch, self._denied], args=args)
        except StoreError as error:
            raise problem_of(error) from error
        self._ids |= {jti}
        self._forget()
        return None if until == _FOR_EVER.encode() else int(float(until)) - _SLACK_MS

    async def withdrew(self) -> None:
        """Tell every worker that a credential ended. Here it holds at once. Raises the 503 problems."""
        try:
            await self._patient.hincrby(self._epoch, "epoch", 1)
        except StoreError as error:
            raise problem_of(error) from error
        self._forget()

    async def _look(self, client: Any) -> None:
        seen = await client.hmget(self._epoch, "epoch", "denials")
        if seen == self._seen:
            return
        self._forget()
        if self._seen is None or self._seen[1] != seen[1]:
            self._ids = await self._read(client)
            self._forget()  # also whom the ids of before let in meanwhile
        self._seen = seen  # only now: a reading that failed is repeated at the next look

    async def _read(self, client: Any) -> frozenset[str]:
        """The ids that are denied now."""
        ids: set[str] = set()
        now_ms = self._clock.now_ms()
        while True:
            page = await client.zrangebyscore(self._denied, now_ms, "+inf", start=len(ids), num=PAGE)
            ids.update(member.decode() for member in page)
            if len(page) < PAGE:
                return frozenset(ids)
