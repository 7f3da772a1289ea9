"""Reacts to Stripe's events, each once, whatever crashes.

An event takes effect in one step with its mark, and leaves the inbox afterwards. Between the two a worker may die: the
event is handed to another, whose reaction finds the mark and changes nothing. What passes by itself (the store away,
Stripe away or busy, a key that does not hold) waits and counts as no try; what fails by itself is given up after some
tries, told, and kept for an operator.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from metering.billing.errors import Barred, GatewayError, TooMany, Unknown
from metering.billing.intake import named
from metering.encryption_errors import EncryptionKeyUnknown
from metering.erasure_errors import OrgErased
from metering.errors import (
    ClockUnsafe,
    LedgerFull,
    Overloaded,
    Problem,
    StorageUnavailable,
    VersionConflict,
)
from metering.store.boxes import Unreadable
from metering.store.inbox import Inbox, Letter
from webhooks.stripe_events import StripeEvent

TURN_S: Final = 1.0
"""Between two looks at all inboxes. What this worker takes in it looks at at once."""

IDLE_MS: Final = 60_000
"""An event handed out this long ago is tried again: a reaction is some calls of seconds at most, and what Stripe does
not know yet it mostly knows a minute later."""

TRIES_MAX: Final = 5
"""Tries of an event that fails by itself, so about five minutes, before it is given up."""

AT_ONCE: Final = 4
"""Reactions of a worker at once: each asks Stripe a few times, which takes 25 calls a second of a sandbox."""

ROUNDS_MAX: Final = 50
"""Events of one partition a turn, so that a full one does not keep the others waiting."""

FAILURES_MAX: Final = 3
"""Events in a row that Stripe gave no answer to before the turn ends: it is away, and the others would only wait."""

BUSY_S: Final = 5.0
"""The pause after a 429 that does not say how long."""

BARRED_S: Final = 60.0
"""The pause while the API key does not hold: somebody has to put it right."""

_AWAY: Final = (StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe)
"""Problems of the store that are no event's fault, and that every other event would meet too."""

_PASSING: Final = (*_AWAY, EncryptionKeyUnknown, VersionConflict, TooMany, Unknown, Barred)

_HOPELESS: Final = (OrgErased,)
"""Problems that no further try mends: somebody has to do something at Stripe first."""

_ODD: Final = (Unreadable, ValueError, TypeError)
"""What an entry that nobody here wrote, or that was damaged, raises."""

React = Callable[[StripeEvent], Awaitable[bool]]
"""Makes an event take effect, with its mark, once however often it is asked; whether an organisation has counted it.

What is nobody's is counted here. Raises Problems or GatewayErrors.
"""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Turn:
    """How a turn goes: `over` says that no further event is begun, `problem` what the store said."""

    failures: int = 0
    over: bool = False
    problem: Problem | None = None


class InboxWorker:
    """Reacts to the events of one data set. Every worker may: they share them.

    `livemode` None: events of both modes. `monotonic` is a stopwatch in seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        react: React,
        monotonic: Callable[[], float],
        *,
        livemode: bool | None = None,
        idle_ms: int = IDLE_MS,
    ) -> None:
        self._inbox, self._react, self._monotonic = inbox, react, monotonic
        self._livemode, self._idle_ms = livemode, idle_ms
        self._paused_until = 0.0

    async def turn(self) -> None:
        """React to what waits, in every partition. Raises the 503s."""
        if self._monotonic() < self._paused_until:
            return
        turn, limit = _Turn(), asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for partition in await self._inbox.waiting():
                group.create_task(self._partition(partition, turn, limit))
        if turn.problem is not None:
            raise turn.problem

    async def _partition(self, partition: int, turn: _Turn, limit: asyncio.Semaphore) -> None:
        """React to what waits in one partition, one event after the other."""
        async with limit:
            try:
                async for letter in self._letters(partition, turn):
                    await self._one(letter, turn)
            except Problem as problem:  # of one partition alone: one that is damaged must not stop the others
                turn.over, turn.problem = turn.over or isinstance(problem, _AWAY), problem

    async def _letters(self, partition: int, turn: _Turn) -> AsyncIterator[Letter]:
        """What waits in one partition while the turn lasts: first what somebody began and did not finish, each once."""
        after = ""
        for _ in range(ROUNDS_MAX):
            letter = None if turn.over else await self._inbox.left(partition, idle_ms=self._idle_ms, after=after)
            if letter is None:
                break
            after = letter.name
            if await self._inbox.tries(letter) > TRIES_MAX:
                await self._give_up(letter, "the worker died each time")
            else:
                yield letter
        for _ in range(ROUNDS_MAX):
            letter = None if turn.over else await self._inbox.unread(partition)
            if letter is None:
                return
            yield letter

    async def _one(self, letter: Letter, turn: _Turn) -> None:
        """React to one event: it leaves the inbox, waits, or is given up."""
        try:
            event = self._inbox.event(letter)
        except _ODD as error:
            await self._give_up(letter, type(error).__name__)
            return
        if self._livemode not in (None, event.livemode):
            log.error("stripe event of the other mode ignored", **named(event), livemode=event.livemode)
            await self._inbox.dismiss(letter)
            return
        try:
            noted = await self._react(event)
        except (Problem, GatewayError) as error:
            await self._failed(letter, event, error, turn)
        except Exception as error:  # a fault of ours must not stop the other events
            log.exception("reaction failed", **named(event))
            await self._failed(letter, event, error, turn)
        else:
            await self._inbox.dismiss(letter, count="" if noted else event.type)
            turn.failures = 0

    async def _failed(self, letter: Letter, event: StripeEvent, error: Exception, turn: _Turn) -> None:
        """Leave it for later, or give it up. The store must answer: where it does not, that is what is raised."""
        tries, why = await self._inbox.tries(letter), _why(error)
        if isinstance(error, _PASSING):
            await self._inbox.hand_back(letter, tries=max(0, tries - 1))
            self._pass(error, turn)
            log.warning("stripe event waits", **named(event), why=why)
        elif tries >= TRIES_MAX or isinstance(error, _HOPELESS):
            await self._give_up(letter, why)
        else:
            log.warning("stripe event failed", **named(event), why=why, tries=tries)

    def _pass(self, error: Exception, turn: _Turn) -> None:
        """What an error that passes means for the other events."""
        turn.failures += isinstance(error, Unknown)
        turn.over = turn.over or isinstance(error, (*_AWAY, TooMany, Barred)) or turn.failures >= FAILURES_MAX
        if isinstance(error, TooMany):
            self._paused_until = self._monotonic() + (error.retry_after_s or BUSY_S)
        if isinstance(error, Barred):
            self._paused_until = self._monotonic() + BARRED_S
            log.error("stripe refuses our key", why=_why(error))

    async def _give_up(self, letter: Letter, why: str) -> None:
        log.error("stripe event given up", stripe_event=letter.event_id, type=letter.type, why=why)
        await self._inbox.bury(letter, why)


def _why(error: Exception) -> str:
    """An error in a few words, for the log and for whoever looks at what was given up."""
    if isinstance(error, Problem):
        return error.code
    if isinstance(error, GatewayError):
        return " ".join(filter(None, [type(error).__name__, error.code, error.message]))[:500]
    return type(error).__name__
