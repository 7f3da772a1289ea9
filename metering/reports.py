"""What the house knows of reporting errors to somebody who watches: `metering.sentry` is the one that does."""

from collections.abc import Mapping
from typing import Any, Protocol


class Reports(Protocol):
    """Whoever is told of errors."""

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Take a line of the log of level error or above, as it was told. Never raises, never waits."""
        ...

    def close(self) -> None:
        """Send what is left. Blocks, for seconds where nobody takes it."""
        ...
