"""`metering plans diff` and `apply`: nobody's limits change before an operator has seen whom a catalogue changes."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from metering.plan_tasks import apply, effect_of
from metering.settings import Settings
from metering.store.connect import connect
from metering.store.fields import FieldCodec
from metering.store.keys import APPLIED, DATASET
from metering.store.marker import DataSet, apply_version, check_catalogue, open_dataset, terms_known
from metering.store.orgs import Orgs
from metering.store_access import AccessError
from plans.catalogue import parse
from plans.comparison import Difference, differences, rule_text, terms_of
from plans.limits import OnLimit, Rule
from plans.subwindows import Per, SubWindow
from tests.lua.ledger import CATALOGUE
from tests.lua.scenes import calm, event, lawful
from tests.service.running import SECRET, Running, token
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.service import clean_environment

__all__ = ["store", "store_session"]

FIRST = CATALOGUE
SECOND = (
    CATALOGUE.replace("version = 1", "version = 2")
    .replace("scans = { limit = 10,", "scans = { limit = 12,")
    .replace('title = "Calls", unit = "call"', 'title = "Calls", unit = "call", overage_price_minor = 9')
)


def written(folder: Path, text: str) -> str:
    """A catalogue as a file."""
    file = folder / "plans.toml"
    file.write_text(text)
    return str(file)


def settings_of(store: StoreServer, folder: Path, text: str) -> Settings:
    """The settings of a command beside the service, whose catalogue in force is `text`."""
    return Settings(
        redis_url=SecretStr(store.url), jwt_secret=SecretStr(SECRET), plans_file=Path(written(folder, text))
    )


@pytest.fixture
def sold(store: StoreServer, tmp_path: Path) -> StoreServer:
    """A data set with organisations under the first catalogue."""
    with Running(store, plans_file=written(tmp_path, FIRST)) as service:
        service.track(org_id="acme", feature="scans", quantity=11)
        service.track(org_id="beta", feature="scans", quantity=1)
        change = {"org_id": "beta", "limits": {"scans": 77}}
        assert service.call("POST", "/billing/update", token(None, "admin"), json=change).status_code == 200
        service.track(org_id="rich", feature="scans", quantity=1)
        change = {"org_id": "rich", "plan": "pro"}
        assert service.call("POST", "/billing/update", token(None, "admin"), json=change).status_code == 200
    return store


def limits(service: Running) -> dict[str, int]:
    """Scans of everybody."""
    found = {}
    for org in ("acme", "beta", "rich"):
        answer = service.call("GET", f"/usage/{org}", token(org)).json()
        found[org] = answer["features"]["scans"]["limit"]
    return found


def test_a_newer_catalogue_changes_nobody_who_is_there_until_it_is_applied(sold: StoreServer, tmp_path: Path) -> None:
    settings = settings_of(sold, tmp_path, SECOND)
    with Running(sold, plans_file=settings.plans_file) as service:
        before = limits(service)
        assert before == {"acme": 10, "beta": 77, "rich": 40}
        service.track(org_id="newcomer", feature="scans", quantity=1)
        answer = service.call("GET", "/usage/newcomer", token("newcomer")).json()
        assert answer["features"]["scans"]["limit"] == 12
        assert asyncio.run(apply(settings)) == 1
        assert limits(service) == before | {"acme": 12}
        assert asyncio.run(apply(settings)) == 0


def test_who_changes_is_shown_before_with_the_terms_and_whoever_owes_something(
    sold: StoreServer, tmp_path: Path
) -> None:
    settings = settings_of(sold, tmp_path, SECOND)
    for _ in range(2):  # looking changes nothing
        effect = asyncio.run(effect_of(settings))
        assert (effect.before, effect.after) == (1, 2)
        assert effect.changes == {("free", "scans", "10, then overage", "12, then overage"): ["acme"]}
        assert effect.owing == ["acme"]
        assert Difference("plans.free.scans", "10, then overage", "12, then overage") in effect.terms
        assert Difference("features.calls.overage", "not sold", "package: 9 for 1") in effect.terms
        assert len(effect.terms) == 2


def test_what_was_applied_is_in_the_trail_and_takes_nothing_back_that_was_counted(
    sold: StoreServer, tmp_path: Path
) -> None:
    settings = settings_of(sold, tmp_path, SECOND)
    asyncio.run(apply(settings))
    with Running(sold, plans_file=settings.plans_file) as service:
        scans = service.call("GET", "/usage/acme", token("acme")).json()["features"]["scans"]
        assert (scans["current"], scans["overage"], scans["limit"]) == (11, 1, 12)
        entries = service.call("GET", "/v1/audit?org_id=acme", token(None, "admin")).json()["data"]
        [entry] = [one for one in entries if one["type"] == "catalogue_applied"]
        assert entry["actor"].startswith("cli:")
        assert json.loads(entry["details"]["limits"]) == {"scans": ["10, then overage", "12, then overage"]}
        assert "catalogue_applied" not in service.call("GET", "/v1/audit?org_id=beta", token(None, "admin")).text


async def test_a_worker_that_runs_hears_of_it(store: StoreServer) -> None:
    """Whoever was made by a worker with the older catalogue meanwhile is brought to the newer one on the way."""
    async with calm(store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 1))
        law, time = parse(SECOND, "test.toml"), ledger.callers[0].time
        orgs = Orgs(ledger.client, ledger.keys, law, time, FieldCodec(), fake=False, applied=1)
        for applied, limit in ((1, 10), (2, 12)):
            await apply_version(ledger.client, applied)
            await orgs.follow_catalogue()
            org = await orgs.get("acme")
            assert org is not None
            assert org.features["scans"].rule.limit == limit
        await lawful(ledger)


async def marker(client: "Redis", text: str) -> DataSet:
    """The marker after a service with such a catalogue has started."""
    await open_dataset(client, partitions=4, create=True)
    await check_catalogue(client, parse(text, "test.toml"), record=True)
    found = await open_dataset(client, partitions=4, create=False)
    assert found is not None
    return found


async def test_the_first_catalogue_is_applied_by_itself_and_no_later_one(store: StoreServer) -> None:
    async with connect(store.url) as client:
        assert (await marker(client, FIRST)).applied == 1
        assert (await marker(client, SECOND)).applied == 1
        await apply_version(client, 2)
        await apply_version(client, 1)
        assert (await client.hget(DATASET, APPLIED)) == b"2"
        assert (await terms_known(client, 1))["plans.free.scans"] == "10, then overage"
        assert await terms_known(client, 9) == {}


def test_another_content_under_a_version_that_is_known_is_refused(sold: StoreServer, tmp_path: Path) -> None:
    settings = settings_of(sold, tmp_path, SECOND.replace("version = 2", "version = 1"))
    for task in (effect_of, apply):
        with pytest.raises(AccessError, match="differs") as caught:
            asyncio.run(task(settings))
        assert "Raise `version`" in caught.value.cure


def test_a_plan_that_is_gone_keeps_its_organisations_limits(sold: StoreServer, tmp_path: Path) -> None:
    settings = settings_of(sold, tmp_path, SECOND.split("[plans.pro]")[0])
    effect = asyncio.run(effect_of(settings))
    assert effect.without == ["rich"]
    asyncio.run(apply(settings))
    with Running(sold, plans_file=settings.plans_file) as service:
        assert limits(service)["rich"] == 40


class Run:
    """`metering plans ...` beside a store."""

    def __init__(self, store: StoreServer, file: str, *arguments: str, answer: str = "") -> None:
        environment = clean_environment(REDIS_URL=store.url, PLANS_FILE=file, JWT_SECRET=SECRET)
        done = subprocess.run(
            (sys.executable, "-m", "metering.cli", "plans", *arguments),
            env=environment, input=answer, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.code, self.output, self.errors = done.returncode, done.stdout, done.stderr
        assert "Traceback" not in self.errors, self.errors


def test_the_commands_tell_ask_and_apply(sold: StoreServer, tmp_path: Path) -> None:
    file = written(tmp_path, SECOND)
    told = Run(sold, file, "diff")
    assert (told.code, told.errors) == (0, "")
    assert told.output.splitlines()[0] == "version 1 -> 2"
    assert "free  scans    10, then overage  12, then overage  1      acme" in told.output
    shown: dict[str, Any] = json.loads(Run(sold, file, "diff", "--json").output)
    assert shown["changes"][0]["organisations"] == ["acme"]
    refused = Run(sold, file, "apply", answer="n\n")
    assert refused.code == 1
    assert json.loads(Run(sold, file, "diff", "--json").output)["changes"] == shown["changes"]
    applied = Run(sold, file, "apply", "--yes")
    assert applied.output.splitlines()[-1] == "1 organisations changed"
    assert "no organisation changes" in Run(sold, file, "diff").output


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (None, "off"),
        (Rule(5, OnLimit.BLOCK, enabled=False), "off"),
        (Rule(None, OnLimit.OVERAGE), "unlimited"),
        (Rule(5, OnLimit.BLOCK), "5, then block"),
        (
            Rule(5, OnLimit.CAP, windows=(SubWindow(2, Per.HOUR, rolling=True), SubWindow(3, Per.DAY, rolling=False))),
            "5, then cap; 2 a rolling hour; 3 a day",
        ),
    ],
)
def test_a_rule_is_told_in_words(rule: Rule | None, text: str) -> None:
    assert rule_text(rule) == text


def test_every_term_of_money_and_limits_is_compared() -> None:
    """A catalogue that differs in one of them has one difference, which names both sides."""
    law = parse(FIRST, "test.toml")
    plan = law.plans["free"]
    dearer = replace(law, plans={**law.plans, "free": replace(plan, price_minor=5)})
    assert differences(terms_of(law), terms_of(dearer)) == [Difference("plans.free.price_minor", "0", "5")]
    less = replace(law, plans={"free": plan})
    assert {one.after for one in differences(terms_of(law), terms_of(less))} == {None}
    other = replace(law, currency="eur")
    assert differences(terms_of(law), terms_of(other)) == [Difference("currency", "usd", "eur")]
