"""A store in memory, for a look around where no server can be installed. What it held is gone with the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metering.store.embedded import StoreStartError


@contextmanager
def ephemeral_store() -> Iterator[str]:
    """A fake server on a free loopback port; gives its address as redis://HOST:PORT.

    Raises StoreStartError where fakeredis is not installed.
    """
    try:
        from fakeredis import TcpFakeServer  # noqa: PLC0415 - an extra that few starts need
    except ImportError as error:
        raise StoreStartError(
            "--ephemeral needs fakeredis, which is not installed", "pip install 'usage-metering[ephemeral]'"
        ) from error
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True  # a client that stays connected must not hold the end of the process
    thread = threading.Thread(target=server.serve_forever, name="ephemeral-store", daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    try:
        yield f"redis://{host!s}:{port}"
    finally:
        server.shutdown()
        server.server_close()
