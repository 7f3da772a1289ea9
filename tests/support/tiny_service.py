"""`metering serve` around the tiny app: the real parent, the real store, workers that start fast."""

import argparse
import asyncio
import sys
from typing import Any

from metering.clock import SystemClock
from metering.serve import Service
from metering.settings import Settings


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(**modules: Any) -> None:
    """Serve as the command line would, with other modules for the processes it starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--sandbox", action="store_true")
    options = vars(parser.parse_args())
    options.pop("command")
    sandbox = options.pop("sandbox")
    service = Service(Settings.load(options=options), SystemClock(), _say, sandbox=sandbox, **modules)
    sys.exit(asyncio.run(service.run()))


if __name__ == "__main__":
    main(worker_module="tests.support.tiny_worker", sandbox_module="tests.support.tiny_worker")
