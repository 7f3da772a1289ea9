"""A hard limit under 200 writers of every kind over two workers: used up exactly, and never passed at any moment."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from tests.support.aof import states
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess
from tests.support.soak import SEED, drawn

WRITERS: Final = 200
ROUNDS: Final = 6
LIMIT: Final = 3_000

RECORD: Final = Keys(64).record("acme")

CATALOGUE: Final = f"""
version = 1
currency = "usd"
default_plan = "free"
default_feature = "checks"
[features]
checks = {{ title = "Checks", unit = "check" }}
calls = {{ title = "Calls", unit = "call" }}
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "block"
price_minor = 0
[plans.free.features]
checks = {{ limit = {LIMIT} }}
calls = {{ limit = {LIMIT}, on_limit = "cap" }}
"""


class Crowd:
    """The writers of one organisation and feature: what each of them was told that counted, and how it was refused."""

    def __init__(self, workers: Sequence[httpx2.AsyncClient], feature: str) -> None:
        self._workers, self._feature = workers, feature
        self._random = random.Random(SEED)
        self.recorded = 0
        self.refused: Counter[str] = Counter()

    async def write(self, number: int) -> None:
        """Some rounds of one writer, each another kind of writing."""
        chance = random.Random(f"{SEED}-{number}")
        kinds = (self.track, self.batch, self.together, self.reserve, self.give_up, self.lease)
        for turn in range(ROUNDS):
            await chance.choice(kinds)(chance, f"{self._feature}-{number}-{turn}")

    async def track(self, chance: random.Random, name: str) -> None:
        """An event, some of them sent twice at once."""
        body = {"feature": self._feature, "quantity": chance.randint(1, 5), "event_id": name}
        sent = [self._post("/usage/track", body) for _ in range(chance.choice((1, 1, 2)))]
        self._count(*await asyncio.gather(*sent))

    async def batch(self, chance: random.Random, name: str) -> None:
        """Several events, each for itself."""
        await self._many(chance, name, "/v1/events")

    async def together(self, chance: random.Random, name: str) -> None:
        """Several events, all or none."""
        await self._many(chance, name, "/v1/events?atomic=true")

    async def reserve(self, chance: random.Random, name: str) -> None:
        """A reservation that is committed below, at or above what it keeps, by two at once; else released."""
        if not await self._held("/v1/reservations", name, chance.randint(1, 6)):
            return
        body = {"quantity": chance.randint(1, 9)}
        answers = await asyncio.gather(*(self._post(f"/v1/reservations/{name}/commit", body) for _ in range(2)))
        self._count(*answers)
        if all(status == 403 for status, _ in answers):
            await self._post(f"/v1/reservations/{name}", None, method="DELETE")

    async def give_up(self, chance: random.Random, name: str) -> None:
        """A reservation that is released, while somebody commits it."""
        if await self._held("/v1/reservations", name, chance.randint(1, 6)):
            answers = await asyncio.gather(
                self._post(f"/v1/reservations/{name}/commit", {"quantity": 1}),
                self._post(f"/v1/reservations/{name}", None, method="DELETE"),
            )
            self._count(*answers)

    async def lease(self, chance: random.Random, name: str) -> None:
        """A lease of which all, some or nothing is used, and now and then more."""
        granted = await self._held("/v1/leases", name, chance.randint(5, 15))
        if granted:
            used = chance.choice((0, 1, granted - 1, granted, granted + 2))
            status, told = await self._post(f"/v1/leases/{name}/settle", {"used": used})
            self._count((status, told))
            if status == 403:
                self._count(await self._post(f"/v1/leases/{name}/settle", {"used": granted}))

    async def fill(self, number: int) -> None:
        """Single units until none is left."""
        for turn in range(LIMIT):
            body = {"feature": self._feature, "event_id": f"{self._feature}-last-{number}-{turn}"}
            status, told = await self._post("/usage/track", body)
            self._count((status, told))
            if status != 200:
                return

    async def _many(self, chance: random.Random, name: str, path: str) -> None:
        body = [
            {"feature": self._feature, "quantity": chance.randint(1, 3), "event_id": f"{name}-{n}"} for n in range(5)
        ]
        _, told = await self._post(path, body)
        self.recorded += sum(result.get("recorded", 0) for result in told.get("results", ()))

    async def _held(self, path: str, name: str, quantity: int) -> int:
        """Units kept by one that is asked for twice at once."""
        body = {"id": name, "feature": self._feature, "quantity": quantity, "ttl_s": 300}
        answers = await asyncio.gather(*(self._post(path, body) for _ in range(2)))
        found = {told.get("quantity", told.get("granted", 0)) for status, told in answers if status == 201}
        assert len(found) <= 1, answers
        self._count(*answers)
        return found.pop() if found else 0

    def _count(self, *answers: tuple[int, Any]) -> None:
        for status, told in answers:
            self.recorded += told.get("recorded", 0)
            if status >= 400:
                self.refused[told.get("code", str(status))] += 1

    async def _post(self, path: str, body: object, method: str = "POST") -> tuple[int, Any]:
        sent: dict[str, Any] = {} if body is None else {"json": body}
        answer = await self._random.choice(self._workers).request(method, path, **sent)
        assert answer.status_code < 500, answer.text
        return answer.status_code, answer.json() if answer.content else {}


class Watch:
    """Looks at the organisation all the time, as its customer does."""

    def __init__(self, workers: Sequence[httpx2.AsyncClient], feature: str) -> None:
        self._workers, self._feature = cycle(workers), feature
        self.views = 0

    async def view(self) -> None:
        """One look."""
        answer = await next(self._workers).get("/usage")
        if answer.status_code == 200:
            shown = answer.json()["features"][self._feature]
            assert shown["current"] + shown["reserved"] <= LIMIT, shown
            assert shown["remaining"] == LIMIT - shown["current"] - shown["reserved"]
            self.views += 1


@asynccontextmanager
async def during(*looks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Look again and again; what a look raises is raised at the end."""
    done = False

    async def again(look: Callable[[], Awaitable[None]]) -> None:
        while not done:
            await look()

    tasks = [asyncio.create_task(again(look)) for look in looks]
    try:
        yield
    finally:
        done = True
        await asyncio.gather(*tasks)


@contextmanager
def two_workers(store: StoreServer, file: Path) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    """Two on one store, each with a port of its own: of one port the kernel may give all connections to one of them."""
    settings = {
        "REDIS_URL": store.url, "DEBUG": "true", "LOG_LEVEL": "ERROR", "JWT_SECRET": secrets.token_hex(32),
        "PLANS_FILE": str(file), "PENDING_MAX": "20000",  # all that they send may wait, however slow the machine
    }  # fmt: skip
    with ServiceProcess(settings=settings) as one, ServiceProcess(settings=settings) as two:
        yield one, two


@pytest.mark.parametrize("feature", drawn(["checks", "calls"], 2))
def test_200_writers_of_every_kind_over_two_workers_use_a_hard_limit_up_and_never_pass_it(
    tmp_path: Path, feature: str
) -> None:
    """Events, batches, reservations and leases, many of them sent twice, on a feature that blocks and one that caps."""
    file = tmp_path / "plans.toml"
    file.write_text(CATALOGUE)
    with StoreServer() as store:
        with two_workers(store, file) as workers:
            told = asyncio.run(_crowded(store, workers, feature))
        # Each state that the record has been in, as the store wrote it down: not one of them is above the limit.
        taken = [(state[f"u:{feature}"], state[f"h:{feature}"]) for state in states(store.folder, RECORD)]
    note = f"seed {SEED}: {told.recorded} told, {told.refused}"
    assert told.recorded == LIMIT, note
    assert max(map(sum, taken)) == LIMIT, note
    assert taken[-1] == (LIMIT, 0), note
    assert len(taken) > WRITERS, note
    assert max(held for _, held in taken) > WRITERS // 10, note
    assert told.refused["quota-exceeded"] >= WRITERS, note


async def _crowded(store: StoreServer, workers: tuple[ServiceProcess, ServiceProcess], feature: str) -> Crowd:
    """The crowd, once it is done; every law holds then."""
    headers = {"Authorization": f"Bearer {workers[0].token(org='acme')}"}
    # A connection that is kept as long as the server keeps it may be closed just when it is used again.
    limits = httpx2.Limits(max_connections=WRITERS, max_keepalive_connections=WRITERS, keepalive_expiry=1)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(base_url=worker.url, headers=headers, limits=limits, timeout=60)
            )
            for worker in workers
        ]
        crowd, watch = Crowd(clients, feature), Watch(clients, feature)
        async with during(watch.view):
            await asyncio.gather(*(crowd.write(number) for number in range(WRITERS)))
            await asyncio.gather(*(crowd.fill(number) for number in range(WRITERS)))
        assert watch.views > 0
    async with connect(store.url, database=2) as client:
        assert [str(violation) for violation in (await walk(client, Keys(64))).violations] == []
    return crowd
