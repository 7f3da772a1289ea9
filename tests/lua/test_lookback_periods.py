"""History of real events over several periods: it adds up to the closed and running counters, whatever it is shown by.

A seeded walk through ten weeks, anniversary periods that begin inside an hour included, with late events, overage and
groups; once with minutes and once without.
"""

import random
from collections import Counter
from typing import Any, Final

import pytest

from metering.store.conservation import check_org
from metering.store.lookback import Lookback, Page, Place, Question
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.usage import UsageEvent
from plans.periods import Period, Reset, oldest_accepted_ms
from plans.windows import HOUR_MS, Window, Windows
from tests.lua.ledger import CATALOGUE, Ledger
from tests.lua.scenes import DAY_MS, calm, move_to
from tests.support.servers import StoreServer
from tests.support.soak import SEED

ORG: Final = "org-a"
FEATURES: Final = ("open", "scans")
ZONES: Final = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
DECLARED: Final = CATALOGUE.replace("[features]", "[dimensions]\nactor = 3\n\n[features]", 1)

Figures = dict[str, tuple[int, int]]
"""Units and overage by feature."""


async def use(ledger: Ledger, rng: random.Random) -> None:
    """Ten weeks of events, more than one an hour now and then, some stamped earlier."""
    caller = ledger.callers[0]
    now_ms = await ledger.now_ms()
    end_ms = now_ms + 70 * DAY_MS
    while now_ms < end_ms:
        now_ms += rng.choice([0, 20_000, HOUR_MS // 2, 3 * HOUR_MS, DAY_MS, 2 * DAY_MS])
        await move_to(ledger, now_ms)
        oldest_ms = oldest_accepted_ms(now_ms) + HOUR_MS
        stamped = rng.choice([None, None, now_ms - rng.randrange(3 * HOUR_MS), rng.randrange(oldest_ms, now_ms)])
        actor = rng.choice([None, "ann", "bob", "carl", "dora", "emil"])
        event = UsageEvent(ORG, rng.choice(FEATURES), rng.randrange(1, 9), timestamp_ms=stamped)
        event.dimensions = None if actor is None else {"actor": actor}
        await caller.counters.track(event)


async def counters(ledger: Ledger) -> dict[Period, Figures]:
    """What the record and its archives say of each period."""
    keys = [ledger.keys.record(ORG)]
    keys += [key.decode() async for key in ledger.client.scan_iter(match=f"*:u:{ORG}:*")]
    found = {}
    for key in keys:
        fields = {name.decode(): value.decode() for name, value in (await ledger.client.hgetall(key)).items()}
        period = Period(int(fields["ps"]), int(fields["pe"]))
        found[period] = {
            name: (int(fields.get(f"u:{name}", 0)), int(fields.get(f"x:{name}", 0)) - int(fields.get(f"y:{name}", 0)))
            for name in FEATURES
        }
    return found


async def shown(look: Lookback, question: Question, limit: int) -> Figures:
    """The sums of all rows of a walk."""
    units: Counter[str] = Counter()
    overage: Counter[str] = Counter()
    begin: Place | None = None
    while True:
        page = Page()
        await look.extend(page, question, begin, limit)
        for row in page.rows:
            units[row.feature] += row.units
            overage[row.feature] += row.overage or 0
        begin = page.following
        if begin is None:
            return {name: (units[name], overage[name]) for name in FEATURES}


@pytest.mark.parametrize("minute_hours", [0, 48])
async def test_history_adds_up_to_the_counters_of_every_period(store: StoreServer, minute_hours: int) -> None:
    rng = random.Random(SEED + minute_hours)
    retention = Retention(minute_hours=minute_hours)
    async with calm(store.url, catalogue=DECLARED, retention=retention) as ledger:
        caller = ledger.callers[0]
        change = OrgChange(plan="free", reset=Reset.ANNIVERSARY)
        await caller.orgs.update(ORG, change, actor="tester", create=True)
        await use(ledger, rng)
        assert not (await check_org(ledger.client, ledger.keys, ORG, FEATURES)).violations
        expected = await counters(ledger)
        assert len(expected) >= 3, f"seed {SEED}"
        assert all(period.start_ms % HOUR_MS for period in expected)
        look = Lookback(ledger.client, ledger.keys, caller.time, days=770, minute_hours=minute_hours)
        for period, figures in expected.items():
            for timezone in ZONES:
                await check(look, period, timezone, figures, rng)


async def check(look: Lookback, period: Period, timezone: str, figures: Figures, rng: random.Random) -> None:
    """All windows of one zone, grouped and not, whole and cut into pages."""
    for window in (Window.HOUR, Window.DAY, Window.MONTH):
        more: dict[str, Any] = {"borders_ms": frozenset({period.start_ms, period.end_ms}), "fill": rng.random() < 0.1}
        question = Question((ORG,), FEATURES, period, Windows(window, timezone), **more)
        limit = rng.choice([7, 50, 2000])
        told = f"seed {SEED}: {period}, {timezone}, {window}, {limit}"
        assert await shown(look, question, limit) == figures, told
        grouped = Question((ORG,), FEATURES, period, Windows(window, timezone), dim="actor", **more)
        assert await shown(look, grouped, limit) == {name: (units, 0) for name, (units, _) in figures.items()}, told
