"""A service to look around in: organisations in every state, a month of history, and lines to paste that work.

It is `metering serve --sandbox` on a data folder of its own, which is removed at the end, so nothing here is real and
nothing of yours is touched. All of it is made through the API, as a client would; time passes on the test clock.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import aiohttp

from metering.auth import ADMIN
from metering.children import end
from metering.clock import Clock
from metering.clock_tasks import advance
from metering.moments import parse_ms, rfc3339
from metering.sandbox_place import Answering, Place, beside_sandbox
from metering.settings import Settings
from metering.store_access import AccessError
from metering.tokens import mint
from plans.periods import AHEAD_MAX_MS, oldest_accepted_ms

DAY_MS: Final = 86_400_000
DAYS: Final = 29
"""The shortest month of an anniversary but February's: all of it lies in the period that runs."""

LEAD_DAYS: Final = 4
"""How long before the others the one begins whose month is over at the end, with its invoice and its grace."""

PATIENCE_S: Final = 60.0
"""What a start, or an event of the sandbox's, may take on a machine that does other things too."""

LOOK_S: Final = 0.1
END_S: Final = 15.0

TOKEN_TTL_S: Final = 86_400

PLAN: Final = "professional"
FEATURE: Final = "scans"

LOW: Final = "low"

STATES: Final[Mapping[str, tuple[str, int, str]]] = {
    "fine": (PLAN, 400, "40 % of its scans used"),
    "nearly": (PLAN, 850, "85 % used: the warnings at 75 and 80 % are behind it"),
    "over": ("free", 14, "over its 10 scans: counted on, and flagged for overage"),
    LOW: ("free", 62, "above its 10 scans and paid for by credits, of which few are left"),
    "unlimited": ("enterprise", 25_000, "no limit"),
}
"""Organisations by name: plan, scans in the month, and what is to be seen. `overdue` comes by another way."""

OVERDUE: Final = "overdue"

_WEEK: Final = (3, 4, 5, 4, 4, 1, 1)
"""How the usage of a week is spread over its days."""

Tell = Callable[[str], None]


class DemoError(Exception):
    """The demonstration does not come up. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


async def run(port: int, clock: Clock, tell: Tell) -> None:
    """Start it, fill it, show the tour, and serve until SIGINT or SIGTERM. Raises DemoError."""
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, over.set)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metering-demo-")))
        demo = Demo(folder, port, clock, tell)
        service = await demo.start(stack)
        made = asyncio.ensure_future(_made(demo, tell))
        ends = [asyncio.ensure_future(one) for one in (over.wait(), service.wait())]
        stack.push_async_callback(_cancelled, made, *ends)
        await asyncio.wait([made, *ends], return_when=asyncio.FIRST_COMPLETED)
        if made.done():
            made.result()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not over.is_set():
            raise DemoError(
                "the service ended", f"Its log is above; does something listen on port {port}? Give --port."
            )


async def _made(demo: "Demo", tell: Tell) -> None:
    async with aiohttp.ClientSession() as session:
        await demo.fill(session)
    for line in demo.tour():
        tell(line)


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Demo:
    """One demonstration on a data folder."""

    def __init__(self, folder: Path, port: int, clock: Clock, tell: Tell) -> None:
        self._folder, self._clock, self._tell = folder, clock, tell
        self.url = f"http://127.0.0.1:{port}"
        ours = {name.upper() for name in Settings.model_fields}
        others = {name: value for name, value in os.environ.items() if name.upper() not in ours}
        self._environment = others | {
            "DATA_DIR": str(folder),
            "PORT": str(port),
            "GRACE_DAYS": "1",
            "PLANS_FILE": str(folder / "plans.toml"),
            "LOG_LEVEL": "error",
        }
        self._token = ""

    async def start(self, stack: AsyncExitStack) -> Process:
        """Start the service; `stack` ends it. Its lines are not for the reader, what it complains of is."""
        (self._folder / "plans.toml").write_text(_catalogue())
        self._tell("A service with a sandbox Stripe begins; no money moves ...")
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "metering.cli", "serve", "--sandbox",
            stdin=DEVNULL, stdout=DEVNULL, env=self._environment, cwd=self._folder, process_group=0,
        )  # fmt: skip
        stack.push_async_callback(end, service, grace_s=END_S)
        return service

    async def fill(self, session: aiohttp.ClientSession) -> None:
        """Make the organisations and let their month pass."""
        await self._until(self._healthy, session, "the service answers")
        kept = Settings.model_validate({"data_dir": self._folder}).with_secret_kept()
        self._token = mint(kept, self._clock, org="demo", scopes=[ADMIN], ttl_s=TOKEN_TTL_S)
        await self._buys(session)
        await self._pass(LEAD_DAYS)
        for name, (plan, _, _) in STATES.items():
            await self._call(session, "PUT", f"/v1/orgs/{name}", {"plan": plan, "reset": "anniversary"})
        gift = {"amount": 60, "reason": "to look around"}
        await self._call(session, "POST", f"/v1/orgs/{LOW}/grants", gift)
        self._tell(f"{DAYS} days pass ...")
        await self._pass(DAYS)
        for name, (_, units, _) in STATES.items():
            await self._use(session, name, units)
        await self._until(self._is_overdue, session, "a payment is overdue")

    async def _buys(self, session: aiohttp.ClientSession) -> None:
        """One that buys the plan, and whose card declines from then on: its next invoice will not be paid."""
        await self._call(session, "PUT", f"/v1/orgs/{OVERDUE}", {"reset": "anniversary"})
        back = f"{self.url}/docs"
        order = {"org_id": OVERDUE, "plan": PLAN, "success_url": back, "cancel_url": back}
        page = (await self._call(session, "POST", "/v1/billing/checkout", order))["url"]
        async with session.post(page, data={"choice": "pay"}, allow_redirects=False) as answer:
            if answer.status != HTTPStatus.SEE_OTHER:
                raise DemoError(f"the sandbox's checkout answered {answer.status}", "Please report it.")
        await self._until(self._has_bought, session, "a checkout is paid")
        customer = (await self._call(session, "GET", f"/v1/orgs/{OVERDUE}"))["stripe_customer_id"]
        async with session.post(f"{self._sandbox()}/sandbox/cards", json={"customer": customer, "card": "decline"}):
            pass

    def _sandbox(self) -> str:
        found = Answering.read(Place(self._folder))
        return "" if found is None else found.url

    async def _use(self, session: aiohttp.ClientSession, org_id: str, units: int) -> None:
        """Count a month of usage, each day's at its own time."""
        begun_ms = parse_ms((await self._call(session, "GET", f"/v1/orgs/{org_id}"))["period"]["start"])
        first_ms = oldest_accepted_ms(begun_ms + DAYS * DAY_MS) + AHEAD_MAX_MS
        events = [
            {
                "org_id": org_id, "feature": FEATURE, "quantity": quantity, "event_id": f"day-{day}",
                "timestamp": rfc3339(max(first_ms, begun_ms + day * DAY_MS)), "actor": ("ada", "grace")[day % 2],
            }
            for day, quantity in enumerate(spread(units, DAYS))
            if quantity
        ]  # fmt: skip
        told = await self._call(session, "POST", "/v1/events", events)
        if told["accepted"] != len(events):
            raise DemoError(f"{org_id}: {told['results']}", "Please report it.")

    async def _pass(self, days: int) -> None:
        """Let time pass on the test clock, with all that falls due."""
        beside = beside_sandbox(Settings.model_validate({"data_dir": self._folder}).with_secret_kept())
        try:
            await advance(beside, self._clock, days * DAY_MS, lambda _: None, patience_s=PATIENCE_S)
        except AccessError as error:
            raise DemoError(str(error), error.cure) from error

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        """Whether it answers, and the sandbox is set up: then it has told what it signs with."""
        with suppress(aiohttp.ClientError):
            async with session.get(f"{self.url}/health") as answer:
                return answer.status == HTTPStatus.OK and bool(Place(self._folder).webhook_secrets())
        return False

    async def _has_bought(self, session: aiohttp.ClientSession) -> bool:
        return bool((await self._call(session, "GET", f"/v1/orgs/{OVERDUE}"))["plan"] == PLAN)

    async def _is_overdue(self, session: aiohttp.ClientSession) -> bool:
        return bool((await self._call(session, "GET", f"/v1/orgs/{OVERDUE}"))["payment_overdue"])

    async def _until(
        self, seen: Callable[[aiohttp.ClientSession], Any], session: aiohttp.ClientSession, what: str
    ) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if await seen(session):
                        return
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            cure = "Try again when the machine has less to do."
            raise DemoError(f"after {PATIENCE_S:g} s not so far that {what}", cure) from None

    async def _call(self, session: aiohttp.ClientSession, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with session.request(method, f"{self.url}{path}", json=body, headers=headers) as answer:
            told = await answer.json(content_type=None)
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise DemoError(f"{method} {path} answered {answer.status}: {told}", "Please report it.")
            return told

    def tour(self) -> Iterator[str]:
        """What is there, and lines to paste."""
        yield "Ready. Paste these two first:"
        yield f"  export URL={self.url}"
        yield f"  export TOKEN={self._token}"
        yield f"Organisations, with {DAYS} days of history:"
        yield from (f"  {name:<10} {about}" for name, (_, _, about) in STATES.items())
        yield f"  {OVERDUE:<10} its card was declined, and its time of grace is over"
        yield "A tour:"
        for about, line in _lines():
            yield f"  # {about}"
            yield f"  {line}"
        yield f"Pages: {self.url}/docs (every route), {self._sandbox()} (the sandbox Stripe)"
        yield "Ctrl-C ends it and removes everything."


def _catalogue() -> str:
    """The shipped catalogue, with scans that credits pay for as well."""
    shipped, _ = Settings().plans_text()
    return shipped.replace("[features.scans]\n", "[features.scans]\ncredits = 1\n", 1) + "\n[credits]\nlow_mark = 20\n"


def spread(units: int, days: int) -> list[int]:
    """Whole units for each of so many days, weeks up and down, that add up."""
    weights = list(accumulate(_WEEK[day % len(_WEEK)] for day in range(days)))
    ends = [units * weight // weights[-1] for weight in weights]
    return [after - before for before, after in zip([0, *ends], ends, strict=False)]


def _lines() -> Iterator[tuple[str, str]]:
    """What each line shows, and the line."""
    bearer = '-H "Authorization: Bearer $TOKEN"'
    sends = f"{bearer} -H 'Content-Type: application/json' -d"

    def body(**fields: object) -> str:
        return shlex.quote(json.dumps(fields))

    yield "the service, its store and its Stripe", "curl -s $URL/health"
    yield "everybody, with counters and flags", f'curl -s "$URL/v1/orgs?limit=10" {bearer}'
    yield (
        "one more scan above the limit: allowed, and overage",
        f"curl -s $URL/usage/track {sends} {body(org_id='over', feature=FEATURE)}",
    )
    yield (
        "may it, before it does?",
        f"curl -s $URL/v1/check {sends} {body(org_id='nearly', feature=FEATURE, quantity=200)}",
    )
    yield "a month, day by day", f'curl -s "$URL/usage/nearly/history?feature={FEATURE}&window=day" {bearer}'
    yield (
        "where the month will end, with prices line by line",
        f'curl -s "$URL/v1/billing/projection?org_id=over" {bearer}',
    )
    yield "credits that are nearly used up", f'curl -s "$URL/v1/credits/balance?org_id={LOW}" {bearer}'
    yield "what another plan would mean", f"curl -s $URL/v1/plans/{PLAN}/preview {sends} {body(org_id='over')}"
    yield "the subscription that was not paid", f'curl -s "$URL/v1/billing/subscription?org_id={OVERDUE}" {bearer}'
    yield "how that came, step by step", f'curl -s "$URL/v1/audit?org_id={OVERDUE}" {bearer}'
