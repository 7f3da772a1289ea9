"""What `metering doctor` looks at: the gate's own checks, and what only a person wants to know."""

from collections.abc import Iterator
from dataclasses import replace

from metering.clock import Clock
from metering.settings import Settings, SettingsError, StoreKind
from metering.store.binaries import NoServerError, find_binary
from metering.store.connect import StoreError, connect
from metering.store.folder import Folder, Running
from metering.store.gate import Check, GateReport, run_gate
from metering.store.scripts import NAMES, script
from plans.catalogue import Catalogue, CatalogueError, parse

STOPPED = "no store runs in DATA_DIR"


async def gate_report(settings: Settings, url: str, kind: StoreKind, clock: Clock) -> GateReport:
    """The gate's report on the store at `url`, without writing anything, with the scripts and catalogue tried."""
    catalogue, faults = _catalogue(settings)
    async with connect(url) as client:
        report = await run_gate(client, settings, clock, kind=kind, catalogue=catalogue, write=False)
        loaded = []
        if not any(check.name == "store" and check.fatal and not check.ok for check in report.checks):
            loaded = [await _scripts(client, fake=kind is StoreKind.EPHEMERAL)]
    return replace(report, checks=(*report.checks, *faults, *loaded))
