"""The sandbox beside a service, with a witness: what it heard or said wrongly stands in a file of DATA_DIR.

`python -m tests.support.witnessed_sandbox serve --sandbox` is the service; without `serve` it is the sandbox's process.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from metering import serve_worker
from metering.billing.sandbox import serving
from tests.support import tiny_service
from tests.support.stripe_witness import Witness

NAME: Final = "tests.support.witnessed_sandbox"


def faults(data_dir: Path) -> str:
    """What the sandbox of this folder heard or said wrongly."""
    place = data_dir / "witness.txt"
    return place.read_text() if place.exists() else ""


def create_app() -> Callable[..., Awaitable[None]]:
    """The sandbox's app, and its witness."""
    witness = Witness(serving.create_app())
    place = Path(os.environ["DATA_DIR"]) / "witness.txt"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await witness(scope, receive, send)
        if witness.faults:
            place.write_text("\n".join(witness.faults))

    return app


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        tiny_service.main(sandbox_module=NAME)
    serve_worker.main(sys.argv[1:], f"{NAME}:create_app", dated=False)
