"""The store side of the service as tests drive it: organisations and callers with caches and clocks of their own."""

from dataclasses import dataclass
from typing import Any, Final, Self

from metering.clock import SystemClock
from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.corrections import Corrections
from metering.store.counters import Counters
from metering.store.fields import FieldCodec
from metering.store.holds import Holds
from metering.store.keys import Keys
from metering.store.orgs import Orgs
from metering.store.retention import Retention
from metering.store.timing import StoreTime, move_test_clock
from metering.store.violations import Report
from plans.catalogue import Catalogue, parse

LONGEST_TEST_MS: Final = 900_000
SECRET: Final = b"a secret of this data set, 32 B."

CATALOGUE: Final = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"

[features]
scans = { title = "Scans", unit = "scan", credits = 2 }
checks = { title = "Checks", unit = "check", credits = 3 }
calls = { title = "Calls", unit = "call" }
closed = { title = "Closed", unit = "call" }
open = { title = "Open", unit = "call" }

[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "overage"
[plans.free.features]
scans = { limit = 10, on_limit = "overage" }
checks = { limit = 10, on_limit = "block" }
calls = { limit = 10, on_limit = "cap" }
closed = { limit = 5, on_limit = "block", enabled = false }
open = { limit = "unlimited", on_limit = "overage" }

[plans.pro]
title = "Pro"
reset = "anniversary"
price_minor = 4900
on_limit = "overage"
[plans.pro.features]
scans = { limit = 40, on_limit = "overage" }
checks = { limit = 25, on_limit = "cap" }
calls = { limit = 30, on_limit = "block" }
closed = { limit = 5, on_limit = "overage" }
open = { limit = 0, on_limit = "overage" }
"""


class SkewedClock(SystemClock):
    """A machine whose clock is off by `skew_ms`."""

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """The machine's wrong time."""
        return super().now_ms() + self.skew_ms


@dataclass(slots=True)
class Caller:
    """One worker's view of the store."""

    clock: SkewedClock
    time: StoreTime
    orgs: Orgs
    counters: Counters
    holds: Holds
    corrections: Corrections


class Ledger:
    """A data set and its callers. `async with Ledger(url) as ledger:`; `test_clock` allows `jump_to`."""

    def __init__(
        self,
        url: str,
        *,
        partitions: int = 2,
        callers: int = 2,
        test_clock: bool = True,
        catalogue: str = CATALOGUE,
        fake: bool = False,
        **options: Any,
    ) -> None:
        self.keys = Keys(partitions)
        self.catalogue: Catalogue = parse(catalogue, "test.toml")
        self.url, self._count, self._test_clock, self._fake, self._options = url, callers, test_clock, fake, options
        self.offset_ms = 0
        self._dying_ms = SystemClock().now_ms() + LONGEST_TEST_MS
        self.callers: list[Caller] = []

    async def __aenter__(self) -> Self:
        self.client: Any = connect(self.url, retries=2)
        if self._test_clock:
            await move_test_clock(self.client, self.keys, 0)
        for _ in range(self._count):
            await self.add_caller()
        return self

    async def __aexit__(self, *_: object) -> None:
        for caller in self.callers:
            await caller.counters.close()
        await self.client.aclose()

    async def add_caller(self, skew_ms: int = 0) -> Caller:
        """One more worker."""
        clock = SkewedClock(skew_ms)
        time = StoreTime(clock, self.offset_ms if self._test_clock else None)
        codec = FieldCodec()
        version = self.catalogue.version
        orgs = Orgs(self.client, self.keys, self.catalogue, time, codec, fake=self._fake, applied=version)
        counters = Counters(
            self.client,
            self.keys,
            orgs,
            time,
            codec,
            secret=SECRET,
            fake=self._fake,
            dimensions=self.catalogue.dimensions,
            **self._options,
        )
        holds = Holds(self.client, self.keys, time, orgs, counters, fake=self._fake)
        retention = self._options.get("retention", Retention())
        corrections = Corrections(
            self.client, self.keys, orgs, time, codec, secret=SECRET, retention=retention, fake=self._fake
        )
        caller = Caller(clock, time, orgs, counters, holds, corrections)
        self.callers.append(caller)
        return caller

    async def now_ms(self) -> int:
        """The store's effective time."""
        seconds, micros = await self.client.time()
        return int(seconds * 1000 + micros // 1000 + self.offset_ms)

    async def jump_to(self, at_ms: int) -> None:
        """Move the test clock so that the store's time is at least `at_ms`; never back."""
        ahead = at_ms - await self.now_ms()
        if ahead > 0:
            self.offset_ms += ahead
            await move_test_clock(self.client, self.keys, self.offset_ms)
            await self._age_minutes(ahead)

    async def _age_minutes(self, ahead_ms: int) -> None:
        """Minutes live by the server's clock, which did not jump: what would be gone by now goes."""
        for key in [key async for key in self.client.scan_iter(match="*:i:*", count=1000)]:
            await self.client.pexpire(key, await self.client.pttl(key) - ahead_ms)

    async def walk(self) -> Report:
        """The conservation law over every key."""
        return await walk(self.client, self.keys)

    async def dump(self) -> dict[str, bytes]:
        """Every key's serialised value: equal dumps are equal data sets.

        Keys whose age ends them while a test runs are left out, as they would go by themselves between two dumps.
        """
        keys = [key async for key in self.client.scan_iter(count=1000)]
        ends = [await self.client.pexpiretime(key) for key in keys]
        lasting = (key for key, end in zip(keys, ends, strict=True) if end == -1 or end > self._dying_ms)
        return {key.decode(): await self.client.dump(key) for key in lasting}
