"""What `metering encryption` does, on the service's store. Every failure is an AccessError."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metering.settings import Settings
from metering.store.resealing import Resealer
from metering.store_access import AccessError, opened

PRESENT: Final = "present"
OLDER: Final = "older"
MISSING: Final = "missing"
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Left:
    """Values under one key, by its id ('': not encrypted), and what the key is to ENCRYPTION_KEYS."""

    key_id: str
    values: int
    standing: str


async def status(settings: Settings) -> list[Left]:
    """How many values rest under each key. Writes nothing."""
    async with opened(settings) as access:
        found = await Resealer(access.client, access.keys, access.codec).counts()
    return _told(settings, found)


async def rotate(settings: Settings) -> tuple[int, list[Left]]:
    """Encrypt every value under the present key; how many that were, and how many rest under each key then."""
    if not settings.encryption_ring():
        raise AccessError("there is no key", "Set ENCRYPTION_KEYS; `metering encryption new-key` makes one.")
    async with opened(settings) as access:
        resealer = Resealer(access.client, access.keys, access.codec)
        replaced = await resealer.run()
        found = await resealer.counts()
    return replaced, _told(settings, found)


def _told(settings: Settings, found: Mapping[str, int]) -> list[Left]:
    """The keys of the ring in their order, then what else there is."""
    ring = [key_id for key_id, _ in settings.encryption_ring()]
    standing = dict.fromkeys(ring, OLDER) | {ring[0]: PRESENT} if ring else {}
    others = sorted(found.keys() - set(ring))
    return [Left(one, found.get(one, 0), standing.get(one, MISSING if one else PLAIN)) for one in (*ring, *others)]
