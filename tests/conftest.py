"""One Hypothesis profile for every test: no deadlines, and a seed that is always printed."""

import secrets

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
    """Draw the seed here, so that a run can be repeated with the number it printed."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed where the failures are read."""
    seed = config.option.hypothesis_seed
    terminalreporter.write_line(f"Hypothesis seed {seed} (the same run again: --hypothesis-seed={seed})")
