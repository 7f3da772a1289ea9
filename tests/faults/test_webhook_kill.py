"""kill -9 between Stripe's word and its effect: what was answered 200 is kept once and takes effect once."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import redis
from redis.exceptions import RedisError

from tests.faults.reacting import EFFECTS
from tests.faults.test_kill import kill_everything, kill_store, kill_worker, store_url
from tests.lua.letters import client_of, counted, ids, inbox_of, stripe_event
from tests.support.servers import StoreServer, speak
from tests.support.service import ROOT, ServiceProcess, clean_environment
from tests.support.soak import SEED, often
from tests.support.stripe_mail import SECRET, body_of, header, snapshot
from tests.support.wait import wait_until
from webhooks.stripe_events import TYPES

EVENTS: Final = often(400, 2)
CLIENTS: Final = 6


class Stripe:
    """Sends each event until it is answered 200, and some once more."""

    def __init__(self, url: str) -> None:
        self._url, self.delivered, self._lock = f"{url}/webhooks/stripe", 0, threading.Lock()

    def send(self, number: int) -> None:
        body = body_of(snapshot(f"evt_{number}", list(TYPES)[number % len(TYPES)]))
        wait_until(lambda: self._sent(body) == 200, timeout_s=60, what=f"event {number} answered 200")
        if number % 5 == 0:
            self._sent(body)
        with self._lock:
            self.delivered += 1

    def _sent(self, body: bytes) -> int:
        """The status; 0 where no answer came."""
        try:
            with urlopen(Request(self._url, body, header(body)), timeout=10) as answer:  # noqa: S310 - loopback
                return int(answer.status)
        except HTTPError as refusal:
            status = refusal.code
            refusal.close()
        except (OSError, HTTPException):
            return 0
        assert status == 503
        return status


def test_what_stripe_was_told_200_is_in_the_inbox_once_whatever_was_killed() -> None:
    """Events, a fifth of them twice; a worker, the store and everything killed among them."""
    with ServiceProcess("--workers", "2", settings={"STRIPE_WEBHOOK_SECRET": SECRET}) as service:
        assert "always" in speak(store_url(service.data_dir).removeprefix("unix://"), "CONFIG", "GET", "appendfsync")
        stripe = Stripe(service.url)
        with ThreadPoolExecutor(CLIENTS) as clients:
            sent = [clients.submit(stripe.send, number) for number in range(EVENTS)]
            for share, kill in ((0.2, kill_worker), (0.5, kill_store), (0.8, kill_everything)):
                wait_until(lambda: stripe.delivered >= EVENTS * share, timeout_s=60, what=f"{share} delivered")  # noqa: B023
                kill(service)
            for one in sent:
                one.result()
        with redis.Redis.from_url(f"{store_url(service.data_dir)}?db=2") as store:
            assert kept(store) == sorted(f"evt_{number}" for number in range(EVENTS))
            assert len(list(store.scan_iter("*:n:evt_*", count=1000))) == EVENTS


def kept(store: Any) -> list[str]:
    """The ids in the inboxes."""
    keys = list(store.scan_iter("*:inbox", count=1000))
    return sorted(fields[b"event"].decode() for key in keys for _, fields in store.xrange(key))


@contextmanager
def reacting(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that reacts, ended when the block is left."""
    command = (sys.executable, "-m", "tests.faults.reacting", url)
    with subprocess.Popen(command, env=clean_environment(), cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"reacting\n"
            yield process
        finally:
            process.kill()


async def test_row_16_what_was_kept_takes_effect_once_whatever_was_killed(store: StoreServer) -> None:
    """Two processes react to events; they and the store are killed in the middle, again and again."""
    drawn = random.Random(SEED)
    async with client_of(store) as client:
        for number in range(EVENTS):
            await inbox_of(client).receive(stripe_event(number, "invoice.paid"))
    for _ in range(6):
        before = effects(store.url)
        with ExitStack() as stack:
            processes = [stack.enter_context(reacting(store.url)) for _ in range(2)]
            some = before + drawn.randint(10, 60)
            wait_until(lambda: effects(store.url) >= min(some, EVENTS), timeout_s=30, what=f"{some} effects")  # noqa: B023
            if drawn.random() < 0.4:
                store.kill()
                store.start()
            for process in processes:
                process.kill()
    with reacting(store.url):
        wait_until(lambda: not pending(store.url), timeout_s=30, what="nothing waits any more")
    async with client_of(store) as client:
        assert await client.hgetall(EFFECTS) == {f"evt_{number}".encode(): b"1" for number in range(EVENTS)}
        assert await counted(client) == {"invoice.paid": EVENTS}
        assert await ids(client, "dead_inbox") == []


def effects(url: str) -> int:
    """How many events took effect; none known while the store is away."""
    with suppress(RedisError), redis.Redis.from_url(url) as client:
        return int(client.hlen(EFFECTS))
    return 0


def pending(url: str) -> bool:
    """Whether something waits in an inbox, or nobody can say."""
    with suppress(RedisError), redis.Redis.from_url(url) as client:
        return any(client.xlen(key) for key in client.scan_iter("*:inbox"))
    return True
