"""The batcher of a worker that traces: a span for every call, with links to the requests whose events it carries."""

import asyncio
from typing import Any

from metering.store.batcher import Batcher
from metering.store.calls import Call, Group, Pending
from metering.traces import End, Link, Traces


class TracedBatcher(Batcher):
    """As `Batcher`. Calls that carry no event of a traced request have no span."""

    def __init__(self, traces: Traces, **parts: Any) -> None:
        super().__init__(**parts)
        self._traces = traces
        self._links: dict[asyncio.Future[Any], Link] = {}
        self._spans: dict[Call, End] = {}

    def submit(self, event: Pending) -> None:
        """As `Batcher.submit`, with the request in hand noted."""
        super().submit(event)
        link = self._traces.current()
        if link is not None:
            self._links[event.future] = link
            event.future.add_done_callback(self._links.pop)

    def _send(self, groups: list[Group], rich: bool) -> Call:
        call = super()._send(groups, rich)
        waiting = [event.future for event in call.events()]
        links = list(dict.fromkeys(link for one in waiting if (link := self._links.get(one)) is not None))
        if links and call in self._in_flight:
            self._spans[call] = self._traces.call(len(waiting), len(groups), links)
        return call

    def _on_reply(self, call: Call, reply: Any, sent_s: float) -> None:
        end = self._spans.pop(call, None)
        if end is not None:
            end(isinstance(reply, list))
        super()._on_reply(call, reply, sent_s)
