"""Calls of the scripts below the service, with arguments that the service itself never sends."""

import asyncio
from typing import Any, Final

from metering.store.calls import CallMaker, Pending
from metering.store.fields import FieldCodec
from metering.store.frames import Frame, bulk
from metering.store.retention import Retention
from metering.store.scripts import script
from tests.lua.ledger import Caller, Ledger

COUNTED: Final = 1
BAD: Final = 6
STALE: Final = 7


def pending(org_id: str, feature: str, quantity: str, digest: int = 12345) -> Pending:
    """An event whose quantity is any text."""
    tail = b"".join(bulk(part) for part in (feature.encode(), quantity.encode(), b"%d" % digest, b"%d" % (digest + 1)))
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return Pending(org_id, feature, 1, digest, tail, None, future, 0.0)


def words_of(payload: bytes) -> list[bytes]:
    """The arguments of an encoded command."""
    words: list[bytes] = []
    rest = payload.split(b"\r\n", 1)[1]
    while rest:
        size, rest = rest.split(b"\r\n", 1)
        length = int(size[1:])
        words.append(rest[:length])
        rest = rest[length + 2 :]
    return words


async def frame_of(ledger: Ledger, caller: Caller, org_id: str) -> Frame:
    """The frame of a stored organisation, or of one to create."""
    org = await caller.orgs.get(org_id)
    made = org or await caller.orgs.newcomer(org_id)
    return Frame(made, ledger.keys, FieldCodec(), creates=org is None)


async def raw_call(ledger: Ledger, caller: Caller, org_id: str, feature: str, quantity: str) -> list[int]:
    """Run track.lua for one event and give its reply."""
    text = script("track").text
    frame = await frame_of(ledger, caller, org_id)
    caller.time.learn(await ledger.now_ms())
    maker = CallMaker("0" * 40, ledger.keys, caller.time, Retention(history_days=1))
    words = words_of(maker.make([(frame, [pending(org_id, feature, quantity)])]).payload)
    reply: list[int] = await ledger.client.execute_command("EVAL", text, *words[2:])
    return reply
