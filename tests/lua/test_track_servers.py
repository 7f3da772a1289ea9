"""The model test again on every server there is, on a cluster, over several partitions, and watched by MONITOR."""

from collections import Counter
from typing import Any, Final

from metering.usage import Result
from tests.lua.ledger import Ledger
from tests.lua.test_track_model import Run, compare
from tests.support.monitor import keys_of, monitored, scripts
from tests.support.servers import StoreServer
from tests.support.soak import SEED

STEPS: Final = 80


async def agree(server: StoreServer, **options: Any) -> Counter[Result]:
    """Run a generated sequence on the server and compare every answer and figure; gives what was met."""
    async with Ledger(server.url, **options) as ledger:
        run = Run(ledger, SEED)
        try:
            for _ in range(STEPS):
                await run.step()
            await compare(run)
        except Exception as error:
            error.add_note(f"repeat with MODEL_SEED={SEED}")
            raise
    assert run.results[Result.RECORDED] > STEPS / 10, f"too little was counted: {run.results}"
    return run.results


async def test_script_and_model_agree_on_each_server(each_store: StoreServer) -> None:
    await agree(each_store)


async def test_script_and_model_agree_on_a_cluster_where_a_call_holds_one_partition(cluster: StoreServer) -> None:
    assert "cluster_enabled:1" in cluster.say("INFO", "cluster")
    await agree(cluster, one_partition=True, partitions=4)


async def test_script_and_model_agree_where_one_call_holds_many_partitions(store: StoreServer) -> None:
    await agree(store, one_partition=False, partitions=64)


async def test_scripts_touch_no_key_that_they_did_not_declare() -> None:
    """As a cluster demands it, seen from the server's side."""
    with StoreServer() as server:
        async with monitored(server.address) as lines:
            await agree(server, partitions=4)
    calls = [(declared, made) for declared, made in scripts(lines) if made]
    touched = [(key, declared) for declared, made in calls for asked in made for key in keys_of(asked)]
    assert len(calls) > STEPS
    assert len(touched) > 5 * STEPS
    assert {key for key, declared in touched if key not in declared} == set()


async def test_every_key_that_a_script_declares_is_in_one_partition_where_a_call_holds_one() -> None:
    with StoreServer() as server:
        async with monitored(server.address) as lines:
            await agree(server, one_partition=True, partitions=4)
    tags = [{key[: key.index("}")] for key in declared} for declared, made in scripts(lines) if made]
    assert len(set.union(*tags)) == 4
    assert {len(tag) for tag in tags} == {1}
