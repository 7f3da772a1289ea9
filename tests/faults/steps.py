"""Crash points: every call to the store and to Stripe is counted, and any of them may be the last one of its worker.

`before`: the worker dies without having called. `after`: the call had its effect, and nobody learned of it.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

WHEN: Final = ("before", "after")

_WRITES: Final = frozenset(
    {"EVALSHA", "ZADD", "HDEL", "SADD", "XREADGROUP", "XAUTOCLAIM", "send_meter_event", "create_invoice_item"}
)
"""Calls that may change something: a worker that dies around a read leaves what the write before it left."""


Schedule = Mapping[int, str]
"""At which steps workers die, and when."""


def singles(steps: int) -> Iterator[Schedule]:
    """One crash, at every step, before and after."""
    for number, when in product(range(1, steps + 1), WHEN):
        yield {number: when}


def pairs(steps: int) -> Iterator[Schedule]:
    """Two crashes; the second may hit the repair of the first, which makes some steps more."""
    for one, other in combinations(range(1, steps + 5), 2):
        if one <= steps:
            for first, second in product(WHEN, WHEN):
                yield {one: first, other: second}


class Crash(BaseException):
    """The end of a worker. Nothing in the service may catch it."""


@dataclass(slots=True)
class Steps:
    """Counts the calls. `schedule` says at which of them, and when, a worker dies; `names` are all so far,
    `piped` the commands of those that were pipelines.

    With `writes` only calls that may change something count.
    """

    schedule: Schedule = field(default_factory=dict)
    writes: bool = False
    names: list[str] = field(default_factory=list)
    piped: list[str] = field(default_factory=list)
    calls: int = 0

    async def step(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call, or die."""
        self.calls += 1
        if self.writes and name not in _WRITES:
            return await call()
        self.names.append(name)
        when = self.schedule.get(len(self.names))
        if when == "before":
            raise Crash(f"{len(self.names)} before {name}")
        number = len(self.names)
        try:
            return await call()
        finally:  # an error was an answer too
            if when == "after":
                raise Crash(f"{number} after {name}")


class SteppedRedis(Redis):
    """A client of the store whose every command is a step."""

    @classmethod
    def over(cls, client: Any, steps: Steps) -> "SteppedRedis":
        """On the connections of another client."""
        made = cls(connection_pool=client.connection_pool)
        made.steps = steps
        return made

    steps: Steps

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command."""
        name = str(args[0]).upper()
        execute: Any = super().execute_command
        return await self.steps.step(name, lambda: execute(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "SteppedPipeline":
        """A pipeline that is one step."""
        made = SteppedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.steps = self.steps
        return made


class SteppedPipeline(Pipeline):
    """A pipeline of the store: one round trip, one step."""

    steps: Steps

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """All its commands."""
        execute = super().execute
        self.steps.piped += [str(command[0][0]).upper() for command in self.command_stack]
        found: list[Any] = await self.steps.step("PIPELINE", lambda: execute(raise_on_error))
        return found


class SteppedTill:
    """A Stripe whose every call is a step."""

    def __init__(self, till: Any, steps: Steps) -> None:
        self._till, self._steps = till, steps

    def stripe_ms(self) -> Any:
        """No call: what the last one told."""
        return self._till.stripe_ms()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._till, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._steps.step(name, lambda: verb(*args, **options))

        return call
