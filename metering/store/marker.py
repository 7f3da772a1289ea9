"""The data set's marker: who it is, how it is laid out, which catalogues it has seen.

It is made once, field by field with HSETNX in one transaction, so services that start together agree on it
without a script: whoever is first sets a field, everybody reads the same.
"""

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from metering.clock import MS_PER_S
from metering.encryption_errors import EncryptionKeyUnknown
from metering.store.connect import StoreError, texts
from metering.store.fields import FieldCodec, key_id_of
from metering.store.keys import APPLIED, DATASET
from plans.comparison import terms_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from plans.catalogue import Catalogue

SCHEMA: Final = 1
"""The layout of keys and fields. A service that knows only an older one must not write."""

SECRET_BYTES: Final = 32

SECRET: Final = "secret"  # noqa: S105 - a name
"""Field of the marker, and its name for the codec, under no organisation."""

_OURS: Final = "{p[0-9a-f]*"
"""What every key of a partition begins with."""

_LOOK_PAGES: Final = 20
_LOOK_KEYS: Final = 500
"""A database without a marker is searched so far for keys of ours: 10,000 keys, 20 short calls, once."""


class MarkerError(Exception):
    """The data set does not fit this service. `name` is the check, `cure` what to do."""

    def __init__(self, name: str, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.name = name
        self.cure = cure


@dataclass(frozen=True, slots=True)
class DataSet:
    """What the marker says. `secret` keys the digests of event ids; it is as old as the data. `applied` is the version
    of the catalogue that organisations are brought to; 0 where no service with a catalogue has started yet.
    """

    id: str
    secret: bytes
    partitions: int
    created_ms: int
    applied: int = 0

    def __repr__(self) -> str:
        return f"DataSet(id={self.id!r}, partitions={self.partitions}, created_ms={self.created_ms})"


async def open_dataset(
    client: "Redis", *, partitions: int, create: bool, codec: FieldCodec | None = None
) -> DataSet | None:
    """The data set of this database, made when there is none; None when `create` is False and there is none.

    `codec` (None: one without keys) is for its secret.

    Raises MarkerError when it was made with other `partitions` or by a newer service, when its secret is encrypted
    under a key that is not there, or when the database holds keys of ours without a marker; errors of the store as
    they come.
    """
    codec = codec or FieldCodec()
    marker = await _read(client)
    if not marker:
        await _refuse_leftovers(client)
        if not create:
            return None
        marker = await _made(client, partitions, codec)
    return _checked(marker, partitions, codec)


async def check_catalogue(client: "Redis", catalogue: "Catalogue", *, record: bool) -> None:
    """Hold the catalogue against what this data set has seen under the same version; `record` notes a new one.

    Raises MarkerError for other content under a known version: records hold the limits of a version, and
    nothing would tell that they are out of date.
    """
    name = f"catalogue:{catalogue.version}"
    if record:
        await client.hsetnx(DATASET, name, catalogue.digest)
        await client.hsetnx(DATASET, terms_field(catalogue.version), json.dumps(terms_of(catalogue)))
        await client.hsetnx(DATASET, APPLIED, str(catalogue.version))
    seen = (await _read(client)).get(name)
    if seen is not None and seen != catalogue.digest:
        reason = f"the catalogue differs from the one this data set knows as version {catalogue.version}"
        raise MarkerError("catalogue", reason, "Raise `version` in the catalogue file, or take its change back.")


def terms_field(version: int) -> str:
    """The field of the marker that tells the terms of a version, as JSON of texts by name."""
    return f"terms:{version}"


async def terms_known(client: "Redis", version: int) -> dict[str, str]:
    """The terms of a version that this data set has seen; empty where it has not."""
    found = (await _read(client)).get(terms_field(version))
    return {} if found is None else dict(json.loads(found))


async def apply_version(client: "Redis", version: int) -> None:
    """Say that organisations are brought to this version from now on. A newer one stays."""
    known = int((await _read(client)).get(APPLIED, 0))
    if version > known:
        await client.hset(DATASET, APPLIED, str(version))


async def _read(client: "Redis") -> dict[str, str]:
    raw = await client.hgetall(DATASET)
    return texts(raw)


async def _made(client: "Redis", partitions: int, codec: FieldCodec) -> dict[str, str]:
    """Make the marker, or read the one that somebody made in the same moment."""
    seconds, _ = await client.time()
    fields = {
        "schema": str(SCHEMA),
        "partitions": str(partitions),
        "id": secrets.token_hex(8),
        SECRET: _secret_text(secrets.token_hex(SECRET_BYTES), codec),
        "created_ms": str(seconds * MS_PER_S),
    }
    async with client.pipeline(transaction=True) as pipe:
        for name, value in fields.items():
            pipe.hsetnx(DATASET, name, value)
        await pipe.execute()
    return await _read(client)


def _checked(marker: dict[str, str], partitions: int, codec: FieldCodec) -> DataSet:
    """The marker as a DataSet. Raises MarkerError when this service cannot work on it."""
    try:
        schema, made_with, created_ms = (int(marker[name]) for name in ("schema", "partitions", "created_ms"))
        applied = int(marker.get(APPLIED, 0))
        dataset = DataSet(marker["id"], _secret_of(marker[SECRET], codec), made_with, created_ms, applied)
    except EncryptionKeyUnknown as error:
        reason = f"the data set is encrypted under the key '{key_id_of(marker[SECRET])}', which is not there"
        raise MarkerError("ENCRYPTION_KEYS", reason, "Put this key back into ENCRYPTION_KEYS.") from error
    except (KeyError, ValueError) as error:
        reason = f"the marker {DATASET} is damaged ({error})"
        raise MarkerError("data set", reason, "Restore the store from a backup; do not delete the marker.") from error
    if schema != SCHEMA:
        reason = f"the data set has layout {schema}, this service knows layout {SCHEMA}"
        raise MarkerError("data set", reason, "Run the version of the service that the data set belongs to.")
    if made_with != partitions:
        cure = f"Set PARTITIONS={made_with}; it is fixed for the life of a data set."
        raise MarkerError("partitions", f"made with {made_with}, PARTITIONS is {partitions}", cure)
    return dataset


def _secret_text(digits: str, codec: FieldCodec) -> str:
    """The secret as stored: in a box where there are keys, else its bare digits."""
    return digits if codec.current is None else codec.encode("", SECRET, digits)


def _secret_of(stored: str, codec: FieldCodec) -> bytes:
    """The secret again. Raises EncryptionKeyUnknown, ValueError."""
    return bytes.fromhex(codec.decode_bare("", SECRET, stored))


async def _refuse_leftovers(client: "Redis") -> None:
    """Refuse a database that has counters but no marker: its secret is gone, so every repeat would count anew."""
    cursor = 0
    for _ in range(_LOOK_PAGES):
        try:
            cursor, found = await client.scan(cursor, match=_OURS, count=_LOOK_KEYS)
        except StoreError:
            return  # a user that may not SCAN: the search is a courtesy
        if found:
            reason = f"the database holds usage but no marker {DATASET}"
            cure = "Restore the store from a backup, or use another database (REDIS_DB) for a new data set."
            raise MarkerError("data set", reason, cure)
        if cursor == 0:
            return
