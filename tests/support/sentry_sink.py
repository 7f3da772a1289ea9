"""A stand-in for Sentry's intake: a real HTTP server on loopback that takes envelopes.

Their form: https://develop.sentry.dev/sdk/data-model/envelopes/ (a line of headers, then for each item a line of
headers and a line of payload).
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.support.wait import wait_until

KEY: Final = "0123456789abcdef" * 2
PROJECT: Final = "7"
WAIT_S: Final = 20.0


class Sink:
    """What came in: `texts` are whole envelopes, `events` those of their items that are events.

    While `open` is not set it takes requests and answers none of them.
    """

    def __init__(self, port: int) -> None:
        self.dsn = f"http://{KEY}@127.0.0.1:{port}/{PROJECT}"
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.texts: list[str] = []
        self.kinds: list[str] = []
        self.events: list[dict[str, Any]] = []

    def take(self, body: bytes) -> None:
        """Keep one envelope."""
        self.texts.append(body.decode())
        lines = body.split(b"\n")[1:]
        for head, payload in zip(lines[::2], lines[1::2], strict=False):
            self.kinds.append(json.loads(head)["type"])
            self.events += [json.loads(payload)] if self.kinds[-1] == "event" else []

    def wait(self, number: int) -> list[dict[str, Any]]:
        """The events, once there are so many."""
        wait_until(lambda: len(self.events) >= number, timeout_s=WAIT_S, what=f"{number} events came to the sink")
        return self.events

    def clear(self) -> None:
        """Forget what came."""
        for kept in (self.texts, self.kinds, self.events):
            kept.clear()


@contextmanager
def sentry_sink() -> Iterator[Sink]:
    """A sink that runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.asked.set()
            sink.open.wait()
            sink.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200 if self.path == f"/api/{PROJECT}/envelope/" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        sink = Sink(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            sink.open.set()
            server.shutdown()
            thread.join()
