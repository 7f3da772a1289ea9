"""Questions to Stripe, each in its turn among the calls of all workers, and none while Stripe is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from metering.billing.breaker import Breaker
from metering.billing.errors import GatewayError, Unknown
from metering.billing.sending import Fate, Sent, sent_of
from metering.store.pace import StorePace

Pause = Callable[[float], Awaitable[None]]
Answer = TypeVar("Answer")


class Asking:
    """The calls of one process. `pause` waits for some seconds."""

    def __init__(self, pace: StorePace, breaker: Breaker, pause: Pause = asyncio.sleep) -> None:
        self._pace, self._breaker, self._pause = pace, breaker, pause

    async def paced(self) -> None:
        """Wait until a call to Stripe has its place among those of all workers."""
        while wait_s := await self._pace.wait_s():
            await self._pause(wait_s)

    async def ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """Stripe's answer to a question, in its turn. Raises GatewayError, which the breaker has heard of by then."""
        if self._breaker.open:
            raise Unknown("Stripe is left alone for now")
        await self.paced()
        try:
            found = await question()
        except GatewayError as error:
            self.note(sent_of(error))
            raise
        self._breaker.ok()
        return found

    def note(self, sent: Sent) -> None:
        """Tell the breaker of a call that did not succeed: a refusal is an answer, too."""
        if sent.fate in {Fate.REFUSED, Fate.TOO_EARLY}:
            self._breaker.ok()
        else:
            self._breaker.failed(at_once=sent.barred)
