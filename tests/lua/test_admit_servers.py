"""The model test of admit on every server there is, on a cluster, and watched by MONITOR."""

from typing import Any, Final

from metering.store.retention import Retention
from metering.usage import Result
from tests.lua.ledger import Ledger
from tests.lua.test_admit_model import CATALOGUE, Run
from tests.support.monitor import keys_of, monitored, scripts
from tests.support.servers import StoreServer
from tests.support.soak import SEED

STEPS: Final = 80


async def agree(server: StoreServer, **options: Any) -> None:
    """Run a generated sequence on the server, compare every answer, and walk the laws."""
    everything = Retention(minute_hours=48, events_ms=3_600_000)
    async with Ledger(server.url, catalogue=CATALOGUE, retention=everything, **options) as ledger:
        run = Run(ledger, SEED)
        try:
            for _ in range(STEPS):
                await run.step()
            report = await ledger.walk()
            assert not report.violations, "\n".join(map(str, report.violations))
        except Exception as error:
            error.add_note(f"repeat with MODEL_SEED={SEED}")
            raise
    assert run.results[Result.RECORDED] > STEPS / 10, f"too little was counted: {run.results}"


async def test_admit_and_the_model_agree_on_each_server(each_store: StoreServer) -> None:
    await agree(each_store)


async def test_admit_and_the_model_agree_on_a_cluster_where_a_call_holds_one_partition(cluster: StoreServer) -> None:
    assert "cluster_enabled:1" in cluster.say("INFO", "cluster")
    await agree(cluster, one_partition=True, partitions=4)


async def test_no_script_touches_a_key_that_it_did_not_declare() -> None:
    """As a cluster demands it, seen from the server's side."""
    with StoreServer() as server:
        async with monitored(server.address) as lines:
            await agree(server, partitions=4)
    touched = [(key, declared) for declared, made in scripts(lines) for asked in made for key in keys_of(asked)]
    assert len(touched) > 5 * STEPS
    assert {key for key, declared in touched if key not in declared} == set()
