"""Looks at some organisations in every turn, whether their sums hold, while others write: a walk that never ends.

What does not hold is told aloud and noted where everybody sees it, and billing leaves that organisation alone until a
look finds that its sums hold again. Usage is counted meanwhile as ever.
"""

from collections import Counter
from secrets import randbelow
from typing import Any, Final

import structlog

from metering.errors import OrgCorrupt
from metering.store.connect import StoreError, answered, problem_of, texts
from metering.store.conservation import check_org
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of
from metering.store.violations import Violation

SAMPLE: Final = 20
"""Organisations of one turn. Each costs the store about 0.3 ms: a month of days of each feature, read as of one
instant."""

HELD: Final = "held"
BROKEN: Final = "broken"

log = structlog.get_logger(__name__)


class Watch:
    """The walk of one worker, partition by partition from a random one on. `seen` counts looks: HELD or BROKEN.

    `features` are those of the catalogue; `history_days` is how far back history is whole. Errors of the store come
    out as 503 problems.
    """

    def __init__(
        self, client: Client, keys: Keys, features: tuple[str, ...], seen: Counter[str], *, history_days: int
    ) -> None:
        self._client: Any = client
        self._keys, self._features, self._seen, self._days = keys, features, seen, history_days
        self._partition, self._after = randbelow(keys.partitions), ""

    async def turn(self) -> None:
        """Look again at those that did not hold, then at the next ones."""
        for org_id in await self._frozen():
            await self.look(org_id)
        for org_id in await self._sample():
            await self.look(org_id)

    async def look(self, org_id: str) -> None:
        """Check one organisation; freeze or free its billing where that changes."""
        violations = await self._violations(org_id)
        self._seen[BROKEN if violations else HELD] += 1
        key = self._keys.shared("frozen", self._keys.partition(org_id))
        if violations:
            seconds, _ = await answered(self._client.time())
            await answered(self._client.zadd(key, {org_id: int(seconds) * 1000}, nx=True))
            for one in violations:
                log.error("conservation violated", org=org_id, law=one.law, found=one.found, key=one.key)
        elif await answered(self._client.zrem(key, org_id)):
            log.warning("conservation holds again", org=org_id)

    async def _violations(self, org_id: str) -> list[Violation]:
        try:
            record = texts(await self._client.hgetall(self._keys.record(org_id)))
            named = {name[2:] for name in record if name.startswith(("u:", "x:"))}
            features = tuple(sorted(named | set(self._features)))
            report = await check_org(self._client, self._keys, org_id, features, history_days=self._days)
        except StoreError as error:
            problem = problem_of(error)
            if not isinstance(problem, OrgCorrupt):
                raise problem from error
            return [Violation(self._keys.record(org_id), "every key has its type", str(error))]
        return report.violations

    async def _frozen(self) -> list[str]:
        pipe: Any = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.zrange(self._keys.shared("frozen", partition), 0, SAMPLE - 1)
        return [name.decode() for names in await replies_of(pipe, spare=True) for name in names or ()]

    async def _sample(self) -> list[str]:
        """The next ones, of as many partitions as it takes."""
        names: list[str] = []
        for _ in range(self._keys.partitions):
            low = f"({self._after}" if self._after else "-"
            key, most = self._keys.shared("orgs", self._partition), SAMPLE - len(names)
            found = [name.decode() for name in await answered(self._client.zrangebylex(key, low, "+", 0, most))]
            names += found
            if len(names) == SAMPLE:
                self._after = names[-1]
                break
            self._partition, self._after = (self._partition + 1) % self._keys.partitions, ""
        return names
