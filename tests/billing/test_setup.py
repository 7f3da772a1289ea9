"""The set-up at Stripe: what it finds missing, what it makes, and that a second run finds nothing to do."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from metering.billing.gateway import StripeObject
from metering.billing.price_terms import NotExactError, same_terms, share, terms_of
from metering.billing.setup import Found, SetupPlan, Verb, carry_out, content_key, look, plan_of
from metering.billing.wanted import Passed, Ref, Wanted, destination, endpoint, portal, wanted_of
from plans.catalogue import Catalogue, parse
from plans.tiers import PriceModel, Pricing, Tier
from tests.support.stripe_schema import check_params

VERSION = "2026-10-28.endive"
URL = "https://metering.example/webhooks/stripe"

CATALOGUE = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features]
scans = { title = "Scans", unit = "scan", stripe_meter_event = "scans_over", overage_price_minor = 25 }
looks = { title = "Looks", unit = "look", overage_price_minor = 1 }
[features.calls]
title = "Calls"
unit = "call"
stripe_meter_event = "calls_over"
overage_price_minor = 20
overage_per = 100
[features.texts]
title = "Texts"
unit = "text"
stripe_meter_event = "texts_over"
overage_model = "graduated"
overage_tiers = [ { up_to = 100, price_minor = 5, flat_minor = 7 }, { price_minor = 1, per = 4 } ]
[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "overage"
features = { scans = { limit = 10 }, calls = { limit = 10 }, looks = { limit = 1 }, texts = { limit = 1 } }
[plans.pro]
title = "Pro"
reset = "calendar"
price_minor = 9900
on_limit = "overage"
stripe_price_env = "STRIPE_PRICE_PRO"
features = { scans = { limit = 10 }, calls = { limit = 10 }, looks = { limit = 1 }, texts = { limit = 1 } }
[plans.enterprise]
title = "Enterprise"
reset = "calendar"
price_minor = "custom"
on_limit = "overage"
features = { scans = { limit = 10 }, calls = { limit = 10 }, looks = { limit = 1 }, texts = { limit = 1 } }
"""


def catalogue(text: str = CATALOGUE) -> Catalogue:
    """The catalogue of these tests."""
    return parse(text, "test.toml")


def wishes(variables: Mapping[str, str] | None = None, text: str = CATALOGUE) -> list[Wanted | Passed]:
    """All that is wanted for it."""
    return [*wanted_of(catalogue(text), variables or {}), portal(), endpoint(URL, VERSION), destination(URL)]


PLACES = {
    "meters": "/v1/billing/meters",
    "products": "/v1/products",
    "prices": "/v1/prices",
    "portal_configurations": "/v1/billing_portal/configurations",
    "webhook_endpoints": "/v1/webhook_endpoints",
    "event_destinations": "/v2/core/event_destinations",
}


class Shelf:
    """Stripe as far as a set-up goes: it keeps what it is given, and notes the keys."""

    def __init__(self) -> None:
        self.kept: dict[str, list[StripeObject]] = {}
        self.keys: list[str] = []
        self._ids = count(1)

    def __getattr__(self, verb: str) -> Any:
        """`create_x` keeps an x, `update_x` changes one, any other name lists what is kept of a kind."""
        if verb.startswith("create_"):
            return lambda params, *, key: self._create(f"{verb.removeprefix('create_')}s", params, key)
        if verb.startswith("update_"):
            return lambda an_id, params: self._update(f"{verb.removeprefix('update_')}s", an_id, params)
        return lambda *_: self._list(verb)

    async def _create(self, kind: str, params: Mapping[str, Any], key: str) -> StripeObject:
        assert key not in self.keys
        check_params("POST", PLACES[kind], params)
        self.keys.append(key)
        made = {"id": f"{kind}_{next(self._ids)}", "active": True, "metadata": {}, **params}
        made["status"] = "active" if kind == "meters" else "enabled"
        if params.get("transfer_lookup_key"):
            self.kept["prices"] = [one | {"lookup_key": None} if one["lookup_key"] == params["lookup_key"] else one
                                   for one in self.kept.get("prices", [])]  # fmt: skip
        self.kept.setdefault(kind, []).append(made)
        return made | ({"secret": "whsec_1"} if kind == "webhook_endpoints" else {})

    async def _update(self, kind: str, an_id: str, params: Mapping[str, Any]) -> StripeObject:
        check_params("POST", f"{PLACES[kind]}/{an_id}", params)
        made = next(one for one in self.kept[kind] if one["id"] == an_id)
        made.update(params)
        return made

    async def _list(self, kind: str) -> list[StripeObject]:
        return [*self.kept.get(kind, [])]


async def plan(shelf: Shelf, wanted: list[Wanted | Passed] | None = None, *, moves: bool = False) -> SetupPlan:
    """The plan for what the shelf has."""
    chosen = wanted or wishes()
    return plan_of(chosen, await look(shelf, chosen), moves=moves)


async def set_up(shelf: Shelf, wanted: list[Wanted | Passed] | None = None) -> list[str]:
    """Run a set-up; what was done."""
    found = await plan(shelf, wanted)
    assert not found.faults
    return [f"{done.step.verb} {done.step.wanted.name}" async for done in carry_out(shelf, found)]


async def test_everything_that_the_catalogue_needs_is_made_once_and_a_second_run_does_nothing() -> None:
    shelf = Shelf()
    done = await set_up(shelf)
    assert done == [
        "make scans", "make metering_feature:scans", "make metering_scans_overage",
        "make calls", "make metering_feature:calls", "make metering_calls_overage",
        "make texts", "make metering_feature:texts", "make metering_texts_overage",
        "make metering_plan:pro", "make metering_pro_base",
        "make portal", f"make {URL}", f"make {URL}",
    ]  # fmt: skip
    assert await set_up(shelf) == []
    assert not [price for price in shelf.kept["prices"] if isinstance(price["recurring"].get("meter"), Ref)]


async def test_a_run_that_was_broken_off_goes_on_where_it_stopped() -> None:
    whole, broken = Shelf(), Shelf()
    everything = await set_up(whole)
    taken = 0
    async for _ in carry_out(broken, await plan(broken)):
        taken += 1
        if taken == 5:
            break
    assert await set_up(broken) == everything[5:]
    assert whole.keys == broken.keys


async def test_a_changed_price_takes_over_the_lookup_key_and_going_back_makes_a_third_one() -> None:
    shelf = Shelf()
    await set_up(shelf)
    dearer = CATALOGUE.replace("overage_price_minor = 25", "overage_price_minor = 30")
    assert await set_up(shelf, wishes(text=dearer)) == ["change metering_scans_overage"]
    assert await set_up(shelf) == ["change metering_scans_overage"]
    named = [price for price in shelf.kept["prices"] if price["lookup_key"] == "metering_scans_overage"]
    assert [price["unit_amount_decimal"] for price in named] == ["25"]
    assert len(shelf.keys) == len(set(shelf.keys))


async def test_the_keys_of_making_the_same_thing_are_the_same_unless_it_takes_another_place() -> None:
    assert content_key({"a": 1, "b": {"c": 2}}, "") == content_key({"b": {"c": 2}, "a": 1}, "")
    assert len({content_key({"a": 1}, ""), content_key({"a": 2}, ""), content_key({"a": 1}, "price_1")}) == 3


async def test_a_price_named_in_the_environment_wins() -> None:
    found = await plan(Shelf(), wishes({"STRIPE_PRICE_PRO": "price_x"}))
    assert not [step for step in found.steps if "pro" in step.wanted.name and step.wanted.kind == "price"]
    assert ("plan pro", "its price is named by STRIPE_PRICE_PRO") in [(one.name, one.why) for one in found.passed]


SOLD_BY_THE_YEAR = CATALOGUE.replace(
    "price_minor = 9900", 'price_minor = 9900\nyearly = { price_minor = 99000, stripe_price_env = "PRO_YEARLY" }', 1
)


async def test_a_plan_that_is_sold_by_the_year_has_a_price_for_it_too() -> None:
    shelf = Shelf()
    await set_up(shelf)
    assert await set_up(shelf, wishes(text=SOLD_BY_THE_YEAR)) == ["make metering_pro_base_yearly"]
    (yearly,) = (price for price in shelf.kept["prices"] if price["lookup_key"] == "metering_pro_base_yearly")
    assert (yearly["unit_amount"], yearly["recurring"]) == (99000, {"interval": "year"})
    (monthly,) = (price for price in shelf.kept["prices"] if price["lookup_key"] == "metering_pro_base")
    assert yearly["product"] == monthly["product"]
    assert await set_up(shelf, wishes(text=SOLD_BY_THE_YEAR)) == []


async def test_a_price_of_the_year_named_in_the_environment_wins() -> None:
    shelf = Shelf()
    await set_up(shelf, wishes({"PRO_YEARLY": "price_y"}, SOLD_BY_THE_YEAR))
    assert "metering_pro_base_yearly" not in {price["lookup_key"] for price in shelf.kept["prices"]}
    assert "metering_pro_base" in {price["lookup_key"] for price in shelf.kept["prices"]}


async def test_what_is_not_sold_is_left_out_and_told_why() -> None:
    found = await plan(Shelf())
    assert [(one.name, one.why, one.fault) for one in found.passed] == [
        ("overage of looks", "the catalogue gives it no stripe_meter_event: it is not sold", False),
        ("plan free", "it costs nothing", False),
        ("plan enterprise", "its price is made for each customer", False),
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"default_aggregation": {"formula": "count"}}, "its formula is count"),
        ({"default_aggregation": {"formula": "last"}}, "its formula is last"),
        ({"event_time_window": "hour"}, "only the last event of each hour"),
        ({"value_settings": {"event_payload_key": "units"}}, "reads other names"),
        ({"customer_mapping": {"type": "by_id", "event_payload_key": "who"}}, "reads other names"),
    ],
)
async def test_a_meter_that_would_not_bill_what_it_is_sent_is_refused(change: dict[str, Any], says: str) -> None:
    shelf = Shelf()
    await set_up(shelf)
    shelf.kept["meters"][0].update(change)
    (fault,) = (await plan(shelf)).faults
    assert (fault.name, says in fault.why, fault.cure != "") == ("meter scans_over", True, True)
    shelf.kept["meters"][0]["status"] = "inactive"
    assert (await plan(shelf)).changes[0].wanted.name == "scans"


async def test_a_portal_that_lets_plans_be_switched_is_put_right() -> None:
    shelf = Shelf()
    await set_up(shelf)
    shelf.kept["portal_configurations"][0]["features"] |= {"subscription_update": {"enabled": True}}
    assert await set_up(shelf) == ["change portal"]
    assert await set_up(shelf) == []


async def test_an_endpoint_is_given_the_events_it_lacks_and_one_of_another_version_is_a_fault() -> None:
    shelf = Shelf()
    await set_up(shelf)
    (made,) = shelf.kept["webhook_endpoints"]
    made["enabled_events"] = made["enabled_events"][1:]
    assert await set_up(shelf) == [f"change {URL}"]
    made["status"] = "disabled"
    assert [step.verb for step in (await plan(shelf)).changes] == [Verb.CHANGE]
    made["api_version"] = "2024-06-20"
    assert "2024-06-20" in (await plan(shelf)).faults[0].why


async def test_a_service_that_moved_takes_its_endpoint_along_only_where_it_may() -> None:
    shelf, moved = Shelf(), "http://127.0.0.1:9000/webhooks/stripe"
    await set_up(shelf)
    chosen: list[Wanted | Passed] = [endpoint(moved, VERSION)]
    assert [step.verb for step in (await plan(shelf, chosen)).steps] == [Verb.MAKE]
    assert [step.verb for step in (await plan(shelf, chosen, moves=True)).steps] == [Verb.CHANGE]


async def test_secrets_are_handed_on_once() -> None:
    shelf = Shelf()
    found = await plan(shelf)
    secrets = [done.secret async for done in carry_out(shelf, found) if done.secret]
    assert secrets == ["whsec_1"]


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("price_minor", "per", "text"),
    [(25, 1, "25"), (20, 100, "0.2"), (1, 4, "0.25"), (0, 7, "0"), (100, 1, "100"), (1, 10**12, "0.000000000001")],
)
def test_a_share_is_told_exactly(price_minor: int, per: int, text: str) -> None:
    assert share(Tier(None, price_minor, per)) == text


@pytest.mark.parametrize(("price_minor", "per"), [(1, 3), (10, 7), (1, 2**13), (1, 10**13)])
def test_a_share_that_cannot_be_told_exactly_is_a_fault(price_minor: int, per: int) -> None:
    with pytest.raises(NotExactError):
        share(Tier(None, price_minor, per))
    text = CATALOGUE.replace("overage_price_minor = 25", f'overage_price_minor = {price_minor}, overage_per = {per}, '
                             'overage_model = "flat"')  # fmt: skip
    (fault,) = plan_of(wishes(text=text), Found()).faults
    assert fault.name == "overage of scans"


def _shown(terms: Mapping[str, Any]) -> dict[str, Any]:
    """A price as Stripe shows it, amounts in both spellings where they are whole."""
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "metered", "meter": "m"}
    empty = {"tiers_mode": None, "transform_quantity": None, "trial_period_days": None}
    shown = {"currency": "usd", "recurring": recurring, **empty, **terms}
    if "tiers" in terms:
        shown["tiers"] = [
            {
                "flat_amount": None,
                "unit_amount": None,
                **tier,
                "up_to": None if tier["up_to"] == "inf" else tier["up_to"],
            }
            for tier in terms["tiers"]
        ]
        return shown | {"unit_amount": None, "unit_amount_decimal": None}
    whole = "." not in terms["unit_amount_decimal"]
    return shown | {"unit_amount": int(terms["unit_amount_decimal"]) if whole else None}


@pytest.mark.parametrize(
    "pricing",
    [
        Pricing(PriceModel.FLAT, (Tier(None, 20, 100),)),
        Pricing(PriceModel.PACKAGE, (Tier(None, 25, 1),)),
        Pricing(PriceModel.PACKAGE, (Tier(None, 20, 100),)),
        Pricing(PriceModel.GRADUATED, (Tier(100, 5, 1, 7), Tier(None, 1, 4))),
        Pricing(PriceModel.VOLUME, (Tier(100, 5), Tier(None, 1, 4))),
    ],
)
def test_a_price_is_recognised_as_stripe_shows_it_and_every_other_one_differs(pricing: Pricing) -> None:
    recurring = {"interval": "month", "usage_type": "metered", "meter": "m"}
    wanted = {"currency": "usd", "recurring": recurring, **terms_of(pricing, "usd")}
    assert same_terms(wanted, _shown(terms_of(pricing, "usd")))
    others = [
        Pricing(PriceModel.FLAT, (Tier(None, 21, 100),)),
        Pricing(PriceModel.PACKAGE, (Tier(None, 20, 101),)),
        Pricing(PriceModel.GRADUATED, (Tier(101, 5, 1, 7), Tier(None, 1, 4))),
        Pricing(PriceModel.GRADUATED, (Tier(100, 5, 1, 8), Tier(None, 1, 4))),
        Pricing(PriceModel.VOLUME, (Tier(100, 5, 1, 7), Tier(None, 1, 4))),
    ]
    assert not any(same_terms(wanted, _shown(terms_of(other, "usd"))) for other in others)
    assert not same_terms({**wanted, "currency": "eur"}, _shown(terms_of(pricing, "usd")))
    assert not same_terms({**wanted, "recurring": {**recurring, "meter": "n"}}, _shown(terms_of(pricing, "usd")))
