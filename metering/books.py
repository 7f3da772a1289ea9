"""What remembers, over a store that is open: the books of one data set, each made in one place."""

from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from metering.settings import Settings
from metering.store.api_keys import ApiKeys
from metering.store.corrections import Corrections
from metering.store.counters import Counters, LatePolicy
from metering.store.credits import Credits
from metering.store.customers import Customers
from metering.store.erasure import Erasures
from metering.store.fields import FieldCodec
from metering.store.gate import GateReport
from metering.store.keys import Keys
from metering.store.marker import DataSet
from metering.store.orgs import Orgs
from metering.store.past import Past
from metering.store.removal import Removal
from metering.store.retention import Retention
from metering.store.timing import StoreTime
from metering.store.trail import Trail
from metering.traces import Traces
from plans.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Store:
    """The store everything stands on: `client` asks once, `patient` repeats what is safe to repeat."""

    client: Any
    patient: Any
    keys: Keys
    time: StoreTime
    codec: FieldCodec
    dataset: DataSet
    report: GateReport
    fake: bool


def orgs_of(ground: Store, catalogue: Catalogue) -> tuple[Orgs, Customers]:
    """The organisations, and who pays for them."""
    customers = Customers(ground.patient, ground.keys, ground.codec, ground.dataset.secret)
    return Orgs(
        ground.patient,
        ground.keys,
        catalogue,
        ground.time,
        ground.codec,
        fake=ground.fake,
        customers=customers,
        applied=ground.dataset.applied,
    ), customers


def credits_of(ground: Store, orgs: Orgs, catalogue: Catalogue) -> Credits:
    """The credit ledger, with the catalogue's low mark."""
    return Credits(
        ground.patient, ground.keys, orgs, ground.time, ground.codec, low=catalogue.low_credits,
        fake=ground.fake,
    )  # fmt: skip


def counters_of(
    ground: Store,
    orgs: Orgs,
    settings: Settings,
    catalogue: Catalogue,
    retention: Retention,
    traces: Traces | None = None,
) -> Counters:
    """The counters, as the settings want them; they tell `traces` of their calls."""
    return Counters(
        ground.client, ground.keys, orgs, ground.time, ground.codec,
        secret=ground.dataset.secret, auto_create=settings.auto_create_orgs,
        late=LatePolicy(settings.late_policy), one_partition=settings.store_span == "partition",
        dimensions=catalogue.dimensions, retention=retention, pending_max=settings.pending_max,
        fake=ground.fake, traces=traces,
    )  # fmt: skip


def corrections_of(ground: Store, orgs: Orgs, retention: Retention) -> Corrections:
    """What corrects counters."""
    client, keys, secret = ground.patient, ground.keys, ground.dataset.secret
    return Corrections(
        client, keys, orgs, ground.time, ground.codec, secret=secret, retention=retention, fake=ground.fake
    )


def removal_of(ground: Store, orgs: Orgs, api_keys: ApiKeys) -> Removal:
    """The end of organisations, and what takes away the rest."""
    client, keys = ground.patient, ground.keys
    erasures = Erasures(client, keys, orgs, ground.time, ground.codec, fake=ground.fake)
    return Removal(client, keys, erasures, api_keys, orgs.server_now, token_hex(8))


def trail_of(ground: Store) -> tuple[Trail, Past]:
    """What happened, as the audit and as payers see it."""
    trail = Trail(ground.patient, ground.keys, ground.time, ground.codec)
    return trail, Past(ground.patient, ground.keys, ground.codec, trail)
