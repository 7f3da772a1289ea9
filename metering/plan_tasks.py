"""`metering plans diff` and `apply`: whom a newer catalogue changes, before it does."""

import getpass
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from metering.clock import SystemClock
from metering.settings import Settings, SettingsError
from metering.store.marker import MarkerError, apply_version, check_catalogue, terms_known
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.rolling import brought_to
from metering.store.timing import StoreTime, settled_offset
from metering.store_access import Access, AccessError, opened
from plans.catalogue import Catalogue, CatalogueError, parse
from plans.comparison import Difference, differences, rule_text, terms_of

PAGE: Final = 200
"""Organisations that are read together."""

Kind = tuple[str, str, str, str]
"""Plan, feature, rule before, rule after: what happens alike to many organisations."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a newer catalogue does. `changes` are organisations by what happens to them; `owing` have overage in the
    running period, `without` a plan that it no longer has, so that they keep their limits.
    """

    before: int
    after: int
    terms: list[Difference]
    changes: Mapping[Kind, list[str]]
    owing: list[str]
    without: list[str]


async def effect_of(settings: Settings) -> Effect:
    """What the catalogue in force would change of the organisations there are. Writes nothing. Raises AccessError."""
    async with _reader(settings) as (access, orgs, catalogue):
        return await _effect(access, orgs, catalogue)


async def apply(settings: Settings) -> int:
    """Bring every organisation to the catalogue in force; how many changed. Raises AccessError.

    One that is cut short is repeated: who was brought already stays as it is.
    """
    count, actor = 0, f"cli:{getpass.getuser()}"
    async with _reader(settings) as (access, orgs, catalogue):
        async for org in _all(orgs):
            count += await orgs.bring(org.org_id, actor=actor)
        await apply_version(access.client, catalogue.version)
    return count


async def _effect(access: Access, orgs: Orgs, catalogue: Catalogue) -> Effect:
    changes: dict[Kind, list[str]] = defaultdict(list)
    owing: list[str] = []
    without: list[str] = []
    async for org in _all(orgs):
        if org.plan not in catalogue.plans:
            without.append(org.org_id)
        kinds = _kinds(org, brought_to(catalogue, org))
        for kind in kinds:
            changes[kind].append(org.org_id)
        if kinds and org.overage_flagged:
            owing.append(org.org_id)
    applied = access.dataset.applied
    terms = differences(await terms_known(access.client, applied), terms_of(catalogue))
    return Effect(applied, catalogue.version, terms, changes, owing, without)


def _kinds(before: Org, after: Org) -> list[Kind]:
    names = sorted({*before.features, *after.features})
    rules = [(name, *(_rule(org, name) for org in (before, after))) for name in names]
    return [(after.plan, name, old, new) for name, old, new in rules if old != new]


def _rule(org: Org, feature: str) -> str:
    usage = org.features.get(feature)
    return rule_text(None if usage is None else usage.rule)


async def _all(orgs: Orgs) -> AsyncIterator[Org]:
    cursor = None
    while True:
        page, cursor = await orgs.page(cursor, PAGE)
        for org in page:
            yield org
        if cursor is None:
            return


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[tuple[Access, Orgs, Catalogue]]:
    """The organisations as they are, under no newer limits than they have."""
    try:
        catalogue = parse(*settings.plans_text())
    except (SettingsError, CatalogueError) as error:
        raise AccessError(str(error), "`metering plans check FILE` says more.") from error
    async with opened(settings) as access:
        try:
            await check_catalogue(access.client, catalogue, record=False)
        except MarkerError as error:
            raise AccessError(str(error), error.cure) from error
        offset_ms = await settled_offset(access.client, access.keys, test_clock=settings.test_clock)
        time = StoreTime(SystemClock(), offset_ms)
        yield access, Orgs(access.client, access.keys, catalogue, time, access.codec, fake=False), catalogue
