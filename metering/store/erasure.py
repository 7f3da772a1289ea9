"""The end of an organisation: asked for, and told of for ever after.

What counts happens in one script: the record becomes a *mark*, which keeps the name from ever being used again and
says who erased it, when and why. Its units stay in the totals, of nobody. The data key goes in the same step, so that
nothing opens any more what shared streams hold under it: https://csrc.nist.gov/pubs/sp/800/88/r1/final calls that
cryptographic erase. The rest is taken away by `store/removal`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from metering.erasure_errors import ErasureBlocked, OrgErased
from metering.errors import ClockUnsafe, OrgCorrupt, OrgNotFound, VersionConflict
from metering.store.connect import answered, texts
from metering.store.fields import FieldCodec
from metering.store.grants import By
from metering.store.keys import Keys
from metering.store.org import CUSTOMER, Org
from metering.store.org_keys import keys_of
from metering.store.orgs import Orgs
from metering.store.scripts import script
from metering.store.timing import StoreTime
from metering.store.totals import Client

_TURNS: Final = 8

LISTS: Final = ("orgs", "due", "frozen", "grace", "lapsing", "topups", "recharging", "expiring", "top")
"""Lists of a partition whose members are organisations."""

_APART, _CORRUPT, _NOT_BILLED, _CHARGING = -1, -2, 3, 4

OVER: Final = frozenset({"canceled", "incomplete_expired"})
"""Of https://docs.stripe.com/api/subscriptions/object#subscription_object-status: states in which it is
over: nothing more is billed, nothing can be changed, and another one may begin.
"""

_WAY_OUT: Final = {
    "subscription": "POST /v1/billing/subscription/cancel with `at_period_end: false` bills what was used and ends it.",
    "overage": "Wait for Stripe to have it, look at GET /v1/stripe/outbox, or give it up with `write_off=true`.",
    "top-up": "Wait a minute: a payment for credits is under way.",
}


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is left of an organisation. `given_up`: units of overage that Stripe did not have. `done_ms` None: what it
    left behind is still being taken away, and then of the store's `files` as well. `customer`: who paid for it at
    Stripe, where their data lies on.
    """

    org_id: str
    job_id: str
    at_ms: int
    by: By
    customer: str | None
    given_up: int
    done_ms: int | None = None
    files: str | None = None


class Erasures:
    """The erasures of one data set. Errors of the store come out as 503 problems."""

    def __init__(
        self, client: Client, keys: Keys, orgs: Orgs, time: StoreTime, codec: FieldCodec, *, fake: bool = False
    ) -> None:
        self._client: Any = client
        self._keys, self._orgs, self._time, self._codec = keys, orgs, time, codec
        self.woken = asyncio.Event()  # there is something to take away
        self._erase: Any = self._client.register_script(script("erase", fake=fake).text)

    async def find(self, org_id: str) -> Erasure | None:
        """The erasure of an organisation; None where it was not erased."""
        kept = texts(await answered(self._client.hgetall(self._keys.record(org_id))))
        return _read(org_id, kept, self._codec) if "erased" in kept else None

    async def ask(self, org_id: str, job_id: str, by: By, *, write_off: bool) -> Erasure:
        """Erase an organisation, or say when it was. With `write_off` overage that Stripe does not have is given up.

        Raises OrgNotFound; ErasureBlocked while a subscription is in force, a top-up is under way, or there is
        overage to bill; VersionConflict when others keep changing it.
        """
        for _ in range(_TURNS):
            erasure = await self.find(org_id)
            if erasure is not None:
                return erasure
            org = await self._alive(org_id)
            if org is not None:
                await self._try(org, job_id, by, write_off=write_off)
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def _alive(self, org_id: str) -> Org | None:
        """The organisation; None where somebody erased it just now."""
        try:
            org = await self._orgs.present(org_id)
        except OrgErased:
            return None
        if org is None:
            raise OrgNotFound
        return org

    async def _try(self, org: Org, job_id: str, by: By, *, write_off: bool) -> None:
        """One call of the script, which does nothing where the organisation changed since it was read."""
        told = org.profile.subscription
        if told is not None and told.status not in OVER:
            raise _blocked("subscription", f"subscription {told.id} is {told.status}")
        archives = (await keys_of(self._client, self._keys, org.org_id)).get("archive", [])
        reply = await answered(self._erase(keys=self._names(org.org_id, archives), args=[
            self._time.caller_ms(), self._time.offset_text(), org.claim.text(), int(write_off), len(LISTS),
            *self._mark(org, job_id, by),
        ]))  # fmt: skip
        _heed(reply)
        self.woken.set()

    def _mark(self, org: Org, job_id: str, by: By) -> list[str]:
        customer = org.profile.stripe_customer_id
        paid = [] if customer is None else [CUSTOMER, self._codec.encode(org.org_id, CUSTOMER, customer)]
        return ["job", job_id, "by", by.actor, "reason", by.reason, "request_id", by.request_id, *paid]

    def _names(self, org_id: str, archives: list[str]) -> list[str]:
        keys, partition = self._keys, self._keys.partition(org_id)
        shared = ("totals", "erased", "erasing", "plans", "dirty", "unbilled", "charging", *LISTS)
        clock = [] if self._time.test_offset_ms is None else [keys.shared("clock", partition)]
        own = [keys.record(org_id), keys.profile(org_id)]
        return [*own, *(keys.shared(name, partition) for name in shared), *archives, *clock]


def _heed(reply: list[int]) -> None:
    """Raise what the script refused for."""
    if reply[0] == _APART:
        raise ClockUnsafe(headers={"Retry-After": "5"})
    if reply[0] == _CORRUPT:
        raise OrgCorrupt
    if reply[0] == _CHARGING:
        raise _blocked("top-up", "an automatic top-up is under way")
    if reply[0] == _NOT_BILLED:
        _, unsealed, waiting = reply
        raise _blocked("overage", f"{unsealed + waiting} units of overage are not at Stripe")


def _blocked(what: str, found: str) -> ErasureBlocked:
    return ErasureBlocked(found, blocked_by=[{"what": what, "found": found, "cure": _WAY_OUT[what]}])


def _read(org_id: str, kept: Mapping[str, str], codec: FieldCodec) -> Erasure:
    """A mark. Raises OrgCorrupt where no script wrote it."""
    try:
        customer = kept.get(CUSTOMER)
        return Erasure(
            org_id,
            kept["job"],
            int(kept["erased"]),
            By(kept["by"], kept["reason"], kept["request_id"]),
            None if customer is None else codec.decode(org_id, CUSTOMER, customer),
            int(kept["given_up"]),
            int(kept["done"]) if "done" in kept else None,
            kept.get("files"),
        )
    except (KeyError, ValueError) as error:
        raise OrgCorrupt(f"the mark of {org_id} is stored in an unknown shape") from error
