"""`metering serve` around the tiny app: the real parent, the real store, workers that start fast."""

import argparse
import asyncio
import sys

from metering.clock import SystemClock
from metering.serve import Service
from metering.settings import Settings


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--sandbox", action="store_true")
    options = vars(parser.parse_args())
    options.pop("command")
    sandbox = options.pop("sandbox")
    service = Service(
        Settings.load(options=options),
        SystemClock(),
        _say,
        worker_module="tests.support.tiny_worker",
        sandbox=sandbox,
        sandbox_module="tests.support.tiny_worker",
    )
    sys.exit(asyncio.run(service.run()))
