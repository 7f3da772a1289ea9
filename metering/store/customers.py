"""Which organisations a Stripe customer pays for: an index by a digest of the customer's id.

It is written before the profile that it points to, so it may name too many organisations and never too few; every
name is held against its profile when it is read. A sweep writes it again from the profiles.
"""

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.encryption_errors import EncryptionKeyUnknown
from metering.store.connect import answered, text_of
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.org import ERASED

if TYPE_CHECKING:
    from redis.asyncio import Redis

INDEX_S: Final = 3600.0
"""Between two sweeps: they mend what a restored or edited store may lack, which is rare."""

_PAGE: Final = 500
"""Profiles of one round trip: some tens of KB."""

_DIGEST_BYTES: Final = 16

log = structlog.get_logger(__name__)


class Customers:
    """The customers of one data set; `secret` keys their digests. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, codec: FieldCodec, secret: bytes) -> None:
        self._client: Any = client
        self._keys = keys
        self._codec = codec
        self._keyed = blake2b(key=secret, digest_size=_DIGEST_BYTES, person=b"customer")

    def digest(self, customer: str) -> str:
        """What stands for a customer in keys: 32 hex digits."""
        keyed = self._keyed.copy()
        keyed.update(customer.encode())
        return keyed.hexdigest()

    async def add(self, customer: str, org_id: str) -> None:
        """Note that an organisation is about to be paid for by a customer; not of one that was erased meanwhile."""
        await answered(self._client.sadd(self._key(customer), org_id))
        if await answered(self._client.hexists(self._keys.record(org_id), ERASED)):
            await self.remove(customer, org_id)

    async def remove(self, customer: str, org_id: str) -> None:
        """Forget it, once the profile names the customer no more."""
        await answered(self._client.srem(self._key(customer), org_id))

    async def orgs_of(self, customer: str) -> list[str]:
        """The organisations whose profile names the customer, by name."""
        names = sorted(text_of(name) for name in await answered(self._client.smembers(self._key(customer))))
        found = [await self._customer_of(name) for name in names]
        return [name for name, theirs in zip(names, found, strict=True) if theirs == customer]

    async def sweep(self) -> None:
        """Write the index again from all profiles."""
        for partition in range(self._keys.partitions):
            after = "-"
            while after:
                key = self._keys.shared("orgs", partition)
                names = [text_of(name) for name in await answered(self._client.zrangebylex(key, after, "+", 0, _PAGE))]
                await self._sweep(names)
                after = f"({names[-1]}" if len(names) == _PAGE else ""

    async def _sweep(self, names: list[str]) -> None:
        for name in names:
            customer = await self._customer_of(name)
            if customer is not None:
                await self.add(customer, name)

    async def _customer_of(self, org_id: str) -> str | None:
        """The customer that a profile names; None where it names none, or nothing that can be read."""
        stored = await answered(self._client.hget(self._keys.profile(org_id), "stripe_customer"))
        try:
            return None if stored is None else self._codec.decode(org_id, "stripe_customer", text_of(stored))
        except (EncryptionKeyUnknown, ValueError):
            log.warning("customer cannot be read", org=org_id)
            return None

    def _key(self, customer: str) -> str:
        return self._keys.customers(self.digest(customer))
