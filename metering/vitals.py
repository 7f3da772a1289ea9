"""How the service does: whether its store answers, whether the gate still holds, whether it is about to end."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import structlog

from metering.api.services import StoreState
from metering.settings import Settings
from metering.store.connect import StoreError
from metering.store.counters import Counters
from metering.store.gate import GateReport

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class End:
    """Whether this process has been told to end."""

    told: bool = False


@contextmanager
def told_of_the_end() -> Iterator[End]:
    """Notes the signals that end the process at once and leaves them to whoever handled them before.

    The server tells the lifespan only after its last request; by then a balancer should long look elsewhere.
    """
    end = End()
    if threading.current_thread() is not threading.main_thread():
        yield end  # signals are the main thread's alone: a server in a thread is ended by its owner
        return
    before = {number: signal.getsignal(number) for number in _ENDING}

    def note(number: int, frame: FrameType | None) -> None:
        end.told = True
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield end
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


class StoreVitals:
    """`ping` raises a StoreError where the store does not answer.

    `gate` runs the start-up checks again without writing; `opened` is what they said at the start.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[object]],
        gate: Callable[[], Awaitable[GateReport]],
        opened: GateReport,
        counters: Counters,
        end: End,
        settings: Settings,
    ) -> None:
        self._ping = ping
        self._gate = gate
        self._opened = opened
        self._counters = counters
        self._end = end
        self._kind = settings.store_kind.value
        self._attested = settings.store_durability == "attested"
        self._looking: asyncio.Future[list[str]] | None = None

    async def store(self) -> StoreState:
        """The store's state, asked now."""
        lossy = self._opened.lossy
        durability = "lossy" if lossy else "attested" if self._attested else "always"
        return StoreState(await self._answers(), self._kind, self._version(), durability, lossy)

    async def unready(self) -> list[str]:
        """Names of what is wrong, nothing else: whoever may ask this need not know hosts and settings."""
        if self._end.told:
            return ["shutting down"]
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
            self._looking.add_done_callback(self._looked)
        found = await asyncio.shield(self._looking)  # however many ask, the store is asked once
        return ["shutting down"] if self._end.told else found  # it may have been told meanwhile

    def _looked(self, _: object) -> None:
        self._looking = None

    async def _look(self) -> list[str]:
        report = await self._gate()
        found = {check.name: check.found for check in report.failures}
        before, now = self._opened.dataset, report.dataset
        if not found and (now is None or before is None or now.id != before.id):
            found["data set"] = "another one than at the start, or none"
        if not found and not self._counters.ready:
            found["store"] = "the counters have no connection"
        if found:
            log.warning("not ready", checks=found)
        return list(found)

    async def _answers(self) -> bool:
        try:
            await self._ping()
        except StoreError:
            return False
        return True

    def _version(self) -> str:
        return next((check.found for check in self._opened.checks if check.name == "store"), "unknown")
