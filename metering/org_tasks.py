"""What `metering org` does, on the store that the service uses. Every failure is an AccessError.

`show` finds everything that answers a support call, and changes nothing but for a period that ended, which whoever
reads it first closes. `erase` asks for an erasure, which a running service finishes.
"""

import asyncio
import getpass
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from metering.clock import SystemClock
from metering.org_marks import is_mark, mark_of
from metering.settings import Settings, SettingsError
from metering.store.connect import answered
from metering.store.credits import Balance, Credits
from metering.store.erasure import Erasure, Erasures
from metering.store.fields import FieldCodec
from metering.store.grants import By
from metering.store.org import Org
from metering.store.org_names import marked
from metering.store.orgs import Orgs
from metering.store.raw_log import RawEvent, RawLog, Wanted
from metering.store.timing import StoreTime, settled_offset
from metering.store.trail import Entry, Trail
from metering.store.window import State
from metering.store.window_lists import Count, WindowLists
from metering.store_access import Access, AccessError, opened
from metering.ulid import Ulids
from plans.catalogue import Catalogue, CatalogueError, parse

EVENTS: Final = 5
"""Raw events, and entries of the trail, that fit on a screen with all the rest."""


_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Dossier:
    """All about one organisation. `mark` is how the log shows it; `frozen_ms` since when its sums do not hold (None:
    they do); `events` None: the service keeps none; `waiting` are windows of overage that Stripe does not have.
    """

    org: Org
    mark: str
    credits: Balance | None
    events: list[RawEvent] | None
    trail: list[Entry]
    waiting: Mapping[State, Count]
    frozen_ms: int | None


@dataclass(frozen=True, slots=True)
class _Books:
    """What is read."""

    access: Access
    orgs: Orgs
    time: StoreTime
    codec: FieldCodec
    catalogue: Catalogue
    retention_ms: int


async def dossier_of(settings: Settings, named: str) -> Dossier:
    """All about the organisation of that id, or of that mark in the log."""
    async with _books(settings) as books:
        access = books.access
        org_id = await marked(access.client, access.keys, access.dataset.secret, named) if is_mark(named) else named
        org = None if org_id is None else await books.orgs.get(org_id)
        if org is None:
            raise AccessError(f"no organisation {named}", "Check the id, and that REDIS_URL names the right data set.")
        return await _found(books, org)


async def erase(settings: Settings, org_id: str, reason: str, *, write_off: bool, wait_s: float) -> Erasure:
    """Erase an organisation, and wait so long for a service to take away what it left."""
    async with _books(settings) as books:
        access = books.access
        erasures = Erasures(access.client, access.keys, books.orgs, books.time, books.codec)
        by, job = By(f"cli:{getpass.getuser()}", reason), f"era_{Ulids(SystemClock()).mint()}"
        erasure = await erasures.ask(org_id, job, by, write_off=write_off)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while erasure.done_ms is None:
                    await asyncio.sleep(_PAUSE_S)
                    erasure = await erasures.find(org_id) or erasure
        return erasure


async def _found(books: _Books, org: Org) -> Dossier:
    client, keys, org_id = books.access.client, books.access.keys, org.org_id
    trail = Trail(client, keys, books.time, books.codec)
    credit_book = Credits(client, keys, books.orgs, books.time, books.codec, low=books.catalogue.low_credits)
    balance = await credit_book.balance_of(org) if org.pool else None
    (entries, _), counts, frozen = await asyncio.gather(
        trail.back(org_id, EVENTS, None),
        WindowLists(client, keys, books.codec).counts(org_id),
        answered(client.zscore(keys.shared("frozen", keys.partition(org_id)), org_id)),
    )
    mark, events = mark_of(org_id, books.access.dataset.secret), await _events(books, org)
    return Dossier(org, mark, balance, events, entries, counts, None if frozen is None else int(frozen))


async def _events(books: _Books, org: Org) -> list[RawEvent] | None:
    if not books.retention_ms:
        return None
    raw_log = RawLog(books.access.client, books.access.keys, books.time, retention_ms=books.retention_ms)
    found, _ = await raw_log.page(org, Wanted(), None, EVENTS)
    return found


@asynccontextmanager
async def _books(settings: Settings) -> AsyncIterator[_Books]:
    try:
        catalogue = parse(*settings.plans_text())
    except (SettingsError, CatalogueError) as error:
        raise AccessError(str(error), "`metering plans check FILE` says more.") from error
    async with opened(settings) as access:
        client, keys, codec = access.client, access.keys, access.codec
        time = StoreTime(SystemClock(), await settled_offset(client, keys, test_clock=settings.test_clock))
        orgs = Orgs(client, keys, catalogue, time, codec, fake=False)
        yield _Books(access, orgs, time, codec, catalogue, settings.event_retention_ms())
