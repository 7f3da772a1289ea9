"""One Hypothesis profile for every test: no deadlines, and seeds that are always printed."""

import gc
import os
import secrets
from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

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
    """Give every test an id of its own. Where several processes share the work, of tests with one id only one runs;
    the tests that Schemathesis makes differ by their names alone.
    """
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
