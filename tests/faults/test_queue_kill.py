"""kill -9 of workers, store and everything between acceptance and count: what was answered 202 counts exactly once."""

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Final

import pytest

from tests.faults.test_kill import Kill, kill_everything, kill_store, law, named, rounds, store_url
from tests.support.servers import speak
from tests.support.service import ServiceProcess, call
from tests.support.soak import often
from tests.support.wait import wait_until

BATCHES: Final = often(120, 2)
EACH: Final = 50
ORGS: Final = 7
CLIENTS: Final = 4


def kill_workers(service: ServiceProcess) -> None:
    """All workers die at once; the parent starts others."""
    for pid in service.workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Sender:
    """Clients that send each batch until it is answered 202, and single events without an id once."""

    def __init__(self, service: ServiceProcess) -> None:
        self.url, self.token = f"{service.url}/v1/events?ack=async", service.token()
        self.accepted = self.nameless = self.unknown = 0
        self._lock = threading.Lock()

    def send(self, number: int) -> None:
        """Batch `number`, and an event that nobody could recognise again."""
        batch = [
            {"org_id": f"org-{n % ORGS}", "feature": "scans", "event_id": f"evt-{number}-{n}"} for n in range(EACH)
        ]
        wait_until(lambda: self._sent(batch) == EACH, timeout_s=60, what=f"batch {number} accepted")
        told = self._sent([{"org_id": "nameless", "feature": "scans"}])
        with self._lock:
            self.accepted += EACH
            self.nameless += told == 1
            self.unknown += told is None

    def _sent(self, batch: list[dict[str, Any]]) -> int | None:
        """How many were accepted; None where no answer came."""
        with suppress(OSError, HTTPException):
            status, answer = call(self.url, batch, token=self.token)
            assert status in (202, 207, 503), answer
            return int(answer["accepted"]) if status != 503 else None
        return None


@pytest.mark.parametrize("kills", rounds(kill_workers, kill_store, kill_everything), ids=named)
def test_what_was_accepted_counts_once_whatever_is_killed(kills: Sequence[Kill]) -> None:
    """Thousands of events in batches, three kills among them: the counters equal the accepted ids."""
    with ServiceProcess("--workers", "2", settings={"QUEUE_MAX": "100000"}) as service:
        assert "always" in speak(store_url(service.data_dir).removeprefix("unix://"), "CONFIG", "GET", "appendfsync")
        sender = Sender(service)
        with ThreadPoolExecutor(CLIENTS) as clients:
            sent = [clients.submit(sender.send, number) for number in range(BATCHES)]
            for share, kill in zip((0.2, 0.5, 0.8), kills, strict=True):
                wait_until(lambda: sender.accepted >= BATCHES * EACH * share, timeout_s=60, what=f"{share} accepted")  # noqa: B023
                kill(service)
            for one in sent:
                one.result()
        wait_until(lambda: used(service) == BATCHES * EACH, timeout_s=30, what=f"all counted, not {used(service)}")
        wait_until(lambda: waiting(service) == 0, timeout_s=30, what="nothing is left in a queue")
        assert used(service) == BATCHES * EACH
        nameless = of(service, "nameless")
        assert sender.nameless <= nameless <= sender.nameless + sender.unknown
        assert asyncio.run(law(store_url(service.data_dir))) == []


def used(service: ServiceProcess) -> int:
    return sum(of(service, f"org-{number}") for number in range(ORGS))


def of(service: ServiceProcess, org_id: str) -> int:
    """The counter of an organisation; 0 while the service does not answer."""
    with suppress(OSError, HTTPException):
        status, view = call(f"{service.url}/usage/{org_id}", token=service.token())
        if status == 200:
            return int(view["features"]["scans"]["current"])
    return 0


def waiting(service: ServiceProcess) -> float:
    """Entries in queues, as the metrics tell."""
    _, page = call(f"{service.url}/metrics")
    (line,) = [line for line in page.splitlines() if line.startswith("metering_queue_entries ")]
    return float(line.split()[1])
