"""The sandbox by itself, for work on whatever speaks to Stripe: `python -m metering.billing.sandbox --port 12111`.

On loopback alone. Beside a service it is started by `metering serve --sandbox`.
"""

import argparse
from pathlib import Path

import uvicorn

from metering.billing.sandbox.context import Options
from metering.billing.sandbox.serving import serving
from metering.clock import SystemClock
from metering.store.connect import connect
from metering.store.keys import Keys
from metering.store.timing import stored_offset


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options. Ends the process where they are wrong."""
    parser = argparse.ArgumentParser("python -m metering.billing.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=12111, help="on 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--file", type=Path, help="keeps what it knows (default: memory)")
    parser.add_argument("--clock-redis-url", help="the store of a data set whose clock it follows (default: real time)")
    parser.add_argument("--partitions", type=int, default=1, help="of that data set (default: %(default)s)")
    parser.add_argument("--rate-per-s", type=int, help="requests a second, above it 429 (default: no limit)")
    parser.add_argument("--summary-lag-s", type=int, default=0, help="how late summaries are (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    told = parsed(arguments)
    client = connect(told.clock_redis_url, reply_timeout_s=2.0) if told.clock_redis_url else None
    keys = Keys(told.partitions)

    async def offset_ms() -> int:
        return 0 if client is None else await stored_offset(client, keys) or 0

    async def close() -> None:
        if client is not None:
            await client.aclose()

    options = Options(rate_per_s=told.rate_per_s, summary_lag_s=told.summary_lag_s)
    app = serving(told.file, SystemClock(), offset_ms, close, options)
    uvicorn.run(app, host="127.0.0.1", port=told.port, log_level="warning", date_header=False, server_header=False)


if __name__ == "__main__":
    main()
