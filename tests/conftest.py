"""One Hypothesis profile for every test: no deadlines, and seeds that are always printed."""

import gc
import os
import secrets
from collections import Counter
from collections.abc import Generator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

DEAREST: Final = """
service/test_fuzz.py service/test_cli.py service/test_serve.py service/test_serve_sandbox.py service/test_readme.py
faults/test_planted_bugs.py service/test_stripe_setup.py service/test_metrics_workers.py
operators/test_real_prometheus.py billing/test_orders.py service/test_sink.py faults/test_webhook_kill.py
service/test_tenancy.py faults/test_stripe_mistakes.py service/test_ingest_bodies.py faults/test_holds.py
lua/test_conservation.py billing/test_cancelling.py billing/test_credit_sales.py service/test_checkout.py
billing/test_outage.py service/test_clock_commands.py billing/test_shadow.py lua/test_prune_model.py
faults/test_keyed.py faults/test_store_faults.py billing/test_subscriber.py service/test_demo.py
lua/test_adjust_model.py faults/test_overage_crashes.py faults/test_queue_kill.py lua/test_whole_model.py
billing/test_coverage.py billing/test_plan_change.py service/test_withdrawal.py faults/test_holds_parallel.py
service/test_serve_pool.py faults/test_kill.py lua/test_admit_model.py faults/test_exporter_kill.py
faults/test_sink_kill.py
""".split()
"""Files by their time, the longest first. The others take less than ten seconds each, or have many tests."""

RANKS: Final = {name: rank for rank, name in enumerate(DEAREST)}

# A shared machine may stall any one example; slowness is the benches' business. The parent is named because
# on a build machine Hypothesis starts from a profile that draws the same examples for ever.
settings.register_profile(
    "house",
    parent=settings.get_profile("default"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw the seeds here, so that a run can be repeated with the numbers it printed, and all its processes agree."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))
    os.environ.setdefault("MODEL_SEED", str(secrets.randbelow(10**6)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected lives as long as the run: garbage collections would walk it over and over and find nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the dearest files first: where several processes share the work, none is left with one at the end. Give every
    test an id of its own. Where several processes share the work, of tests with one id only one runs;
    the tests that Schemathesis makes differ by their names alone.
    """
    items.sort(key=lambda item: RANKS.get(item.nodeid.partition("::")[0].removeprefix("tests/"), len(RANKS)))
    for item in items:
        _, bracket, params = item.name.partition("[")
        if bracket and item.id.params is None:
            item._id = item.id.with_params(params.removesuffix("]"))  # noqa: SLF001 - there is no other way
    twice = [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]
    if twice:
        raise pytest.UsageError(f"tests with the same id, of which only one would run: {twice}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may hold half a surrogate pair, which cannot go from process to process as it is."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed where the failures are read."""
    seed = config.option.hypothesis_seed
    models = os.environ["MODEL_SEED"]
    again = f"the same run again: MODEL_SEED={models} and --hypothesis-seed={seed}"
    terminalreporter.write_line(f"Model seed {models}, Hypothesis seed {seed} ({again})")
