"""What a real Prometheus makes of the service: every panel and alert has data, it is the store's truth, and real
faults make the alerts fire that are for them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from math import isnan
from typing import Any, Final

import pytest

from metering.app import PACKAGE
from metering.families import WATCHED
from tests.operators.files import DASHBOARDS, alerts, programs, queries
from tests.operators.scene import SOON_S, Labels, Scene, scene
from tests.support.service import call
from tests.support.wait import wait_until

TEST_VARIABLES: Final = {"$__rate_interval": "1m", "$__range": "5m", "$job": ".+", "$instance": ".+", "$org": "acme"}
FIRES_S: Final = 60.0

NOT_OF_THE_SERVICE: Final = {"MeteringApiSlow", "MeteringOverageSpike"}
"""May fire here without a fault: how slow the machine is, and an average day that is some seconds long."""

Truth = Callable[[Scene], Mapping[Labels, float]]


def named(label: str, counts: Mapping[str, int]) -> dict[Labels, float]:
    return {((label, name),): float(count) for name, count in counts.items()}


def one(count: float) -> dict[Labels, float]:
    return {(): float(count)}


def by_feature_and_plan(play: Scene) -> dict[Labels, float]:
    places = {tuple(name.split(":")): count for name, count in play.totals("u").items()}
    return {(("feature", feature), ("plan", plan)): float(count) for (plan, feature), count in places.items()}


def overage(play: Scene) -> dict[Labels, float]:
    lists = {"unsealed": "dirty", "on_its_way": "outbox", "dead": "dead_windows", "unbilled": "unbilled"}
    return named("state", {state: play.length(name) for state, name in lists.items()})


def in_dollars(play: Scene, total: str) -> int:
    """A total of money, over all packages: the catalogue has one currency."""
    return sum(count for name, count in play.totals(total).items() if name.partition(":")[0] == "usd")


def each_order(refunds: str, stayed: str, orders: str) -> Truth:
    def truth(play: Scene) -> dict[Labels, float]:
        given_back = in_dollars(play, refunds) - in_dollars(play, stayed)
        return {(("currency", "usd"),): given_back / in_dollars(play, orders)}

    return truth


def payments(play: Scene) -> dict[tuple[str, str], int]:
    """Payments by what they are for and what became of them."""
    found = {(kind, outcome): 0 for kind in ("credits", "invoice") for outcome in ("succeeded", "failed")}
    found |= {
        (kind, outcome): count for name, count in play.totals("payments").items() for kind, outcome in [name.split(":")]
    }
    return found | {("credits", "succeeded"): in_dollars(play, "orders")}


def succeeded(play: Scene) -> dict[Labels, float]:
    found = payments(play)
    return one(sum(count for (_, outcome), count in found.items() if outcome == "succeeded") / sum(found.values()))


def packages(play: Scene) -> dict[Labels, float]:
    places = {tuple(name.split(":")): count for name, count in play.totals("orders").items()}
    return {(("currency", currency), ("package", size)): float(count) for (currency, size), count in places.items()}


TRUTHS: Final[dict[str, tuple[Truth, ...]]] = {
    "Organisations": (lambda play: one(play.length("orgs")),),
    "Organisations won": (lambda play: one(play.length("orgs")),),
    "Organisations by plan": (lambda play: named("plan", play.plans()),),
    "Units by feature and plan, ever": (by_feature_and_plan,),
    "Units taken out": (lambda play: named("feature", play.totals("c")),),
    "Top organisations": (lambda play: named("org_id", play.units()),),
    "Its units by feature and plan, ever": (lambda play: play.own_by_plan("acme"),),
    "Oldest event of Stripe": (lambda _: one(0),),
    "Oldest event accepted first": (lambda _: one(0),),
    "Releases": (lambda _: {(("version", version(PACKAGE)),): 1.0},),
    "Units ever": (lambda play: one(play.units()["acme"]),),
    "Share of all units, ever": (lambda play: one(play.units()["acme"] / sum(play.units().values())),),
    "Overage on its way": (overage,),
    "Oldest overage": (lambda _: one(0),),
    "Windows delivered": (lambda play: named("how", {"known": 0, **play.totals("w")}),),
    "Drift": (lambda play: one(play.reconciled("drift_units")),),
    "Last reconciliation": (lambda play: one(play.reconciled("reconciled") // 1000 * 1000),),
    "Stripe's events waiting": (lambda play: one(play.length("inbox")), lambda play: one(play.length("dead_inbox"))),
    "Events accepted first": (lambda play: one(play.length("queue")), lambda play: one(play.length("dead"))),
    "Books that do not add up": (lambda play: one(play.length("frozen")),),
    "Store": (lambda _: one(1),),
    "Lossy or embedded": (lambda _: one(0), lambda _: one(0)),
    "Payments that succeed": (succeeded,),
    "Payments, ever": (
        lambda play: {(("kind", kind), ("outcome", to)): float(count) for (kind, to), count in payments(play).items()},
    ),
    "Mean order value": (
        lambda play: {(("currency", "usd"),): in_dollars(play, "order_value") / in_dollars(play, "orders")},
    ),
    "Orders by package, ever": (packages,),
    "Refund rate, ever": (
        each_order("refunds", "refunds_failed", "orders"),
        each_order("refund_value", "refund_failed_value", "order_value"),
    ),
}
"""What the store says, for each query of a panel, of the figures that are exact at rest."""

COUNTS: Final[dict[str, tuple[Truth, ...]]] = {
    "Units by feature": (
        lambda play: named("feature", play.features()),
        lambda play: named("feature", play.own("acme")),
    ),
    "Units by plan": (lambda play: named("plan", play.by_plan()),),
    "Top organisations now": (lambda play: named("org_id", play.units()),),
    "Billing events": (lambda play: named("event_type", {**dict.fromkeys(WATCHED, 0), **play.totals("e")}),),
    "Orders and refunds": (
        lambda play: {(("currency", "usd"),): float(in_dollars(play, "order_value"))},
        lambda play: {(("currency", "usd"),): float(in_dollars(play, "refund_value"))},
    ),
    "Units in the time shown": (lambda play: named("feature", play.own("acme")),),
}
"""The same for panels that show how fast a counter grows: what the counter says itself."""

OWN: Final = ("Asked again, shed, set aside", "Jobs that failed")
"""Panels that have data, of which nobody can say how much there has to be: the workers' own, none on a good day."""

MOVES: Final = (
    "Units by feature", "Units by plan", "Top organisations now", "Billing events", "Calls to Stripe", "Webhooks",
    "Requests", "Duration", "Refusals", "Events", "Calls of the store", "Events a call", "Batches",
    "What became of them", "Units in the time shown", "Orders and refunds", "Looks at the books", "Loop lag",
    "Mean duration by endpoint",
)  # fmt: skip
"""Panels of which the traffic must have moved a series."""

SHARES: Final = (
    "Webhooks believed",
    "Requests in error",
    "Within 100 ms",
    "Share of all units, ever",
    "Payments that succeed",
)


@pytest.fixture(scope="module", params=programs("prometheus"), ids=["prometheus"] * len(programs("prometheus")))
def play(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene(request.param) as running:
        yield running


def filled_in(expr: str) -> str:
    """An expression as Grafana would send it."""
    for name, value in TEST_VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


PANELS: Final = [(title, expr) for name in DASHBOARDS for title, expr in queries(name)]


def lacking(play: Scene) -> list[str]:
    """Panels without data, with what is no number, with a share that is none, or that should have moved."""
    found = [(title, expr, play.prometheus.query(filled_in(expr))) for title, expr in PANELS]
    faults = [f"no data: {title}: {expr}" for title, expr, values in found if not values]
    faults += [f"no number: {title}: {expr}" for title, expr, values in found if any(map(isnan, values.values()))]
    for title, _, values in found:
        if title in SHARES and not all(0 <= value <= 1 for value in values.values()):
            faults.append(f"no share: {title}: {values}")
    moved = {title for title, _, values in found if any(value > 0 for value in values.values())}
    return faults + [f"did not move: {title}" for title in MOVES if title not in moved]


def test_every_query_of_every_panel_has_data(play: Scene) -> None:
    assert not [expr for _, expr in PANELS if re.search(r"vector\(|absent|\bor\b", expr)]

    def whole() -> bool:
        assert play.track("acme", "api_requests", 1) == 200
        return not lacking(play)

    wait_until(whole, timeout_s=SOON_S, what=f"all have data: {lacking(play)}")


def test_every_panel_is_compared_or_said_to_be_the_workers_own() -> None:
    known = {*TRUTHS, *COUNTS, *MOVES, *SHARES, *OWN}
    assert known == {title for title, _ in PANELS}


@pytest.mark.parametrize("title", TRUTHS)
def test_what_a_panel_shows_is_what_the_store_holds(play: Scene, title: str) -> None:
    _compare(play, title, [filled_in(expr) for name, expr in PANELS if name == title], TRUTHS[title])


@pytest.mark.parametrize("title", COUNTS)
def test_what_a_panel_shows_the_growth_of_is_what_the_store_holds(play: Scene, title: str) -> None:
    grown = re.compile(r"(?:rate|increase)\(([^\[]+)\[[^\]]+\]\)")
    found = [grown.subn(r"\1", expr) for name, expr in PANELS if name == title]
    assert {changes for _, changes in found} == {1}
    _compare(play, title, [filled_in(expr) for expr, _ in found], COUNTS[title])


def _compare(play: Scene, title: str, exprs: Sequence[str], truths: Sequence[Truth]) -> None:
    """Wait until Prometheus says what the store holds."""
    assert len(exprs) == len(truths)

    def differing() -> list[Any]:
        return [
            (found, truth(play))
            for expr, truth in zip(exprs, truths, strict=True)
            if (found := play.prometheus.query(expr)) != pytest.approx(truth(play), rel=1e-12)
        ]

    wait_until(lambda: not differing(), timeout_s=SOON_S, what=f"{title}: {differing()}")


def test_the_scene_has_sales_of_each_kind(play: Scene) -> None:
    assert payments(play) == {
        ("credits", "succeeded"): 3, ("credits", "failed"): 1, ("invoice", "succeeded"): 1, ("invoice", "failed"): 0,
    }  # fmt: skip
    assert packages(play) == {
        (("currency", "usd"), ("package", "100")): 2, (("currency", "usd"), ("package", "500")): 1,
    }  # fmt: skip
    assert (in_dollars(play, "order_value"), in_dollars(play, "refund_value")) == (6500, 300)


def test_every_alert_has_data_and_none_fires_while_all_is_well(play: Scene) -> None:
    for rule in alerts():
        assert not re.search(r"vector\(|absent|\bor\b", rule["expr"])
        for side in re.split(r"\band\b", rule["expr"]):
            figure = re.split(r"\s(?:>|==)\s", side)[0]
            assert play.prometheus.query(figure), f"{rule['alert']}: no data for {figure}"
    # What the scene did wrong on purpose (a webhook that nobody signed) is over within the alert's window.
    wait_until(
        lambda: play.prometheus.firing() <= NOT_OF_THE_SERVICE,
        timeout_s=SOON_S,
        what=f"no alert fires: {play.prometheus.firing()}",
    )


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────


def fires(play: Scene, alert: str, again: Callable[[], object] = lambda: None) -> None:
    """Wait until an alert fires that did not; `again` keeps the fault going."""
    assert alert not in play.prometheus.firing()

    def on() -> bool:
        again()
        return alert in play.prometheus.firing()

    wait_until(on, timeout_s=FIRES_S, what=f"{alert} fires")


def calms(play: Scene, alert: str) -> None:
    wait_until(lambda: alert not in play.prometheus.firing(), timeout_s=FIRES_S, what=f"{alert} is over")


def test_a_webhook_secret_that_is_wrong_is_told_and_its_repair_too(play: Scene) -> None:
    """Somebody makes the endpoint anew at Stripe; the service has the secret of the one before."""
    url = f"{play.service.url}/webhooks/stripe"
    (own,) = [one for one in play.at_stripe("GET", "/v1/webhook_endpoints")["data"] if one["url"] == url]
    new = play.at_stripe("POST", "/v1/webhook_endpoints", url=url, **{"enabled_events[0]": "*"})
    play.at_stripe("POST", f"/v1/webhook_endpoints/{own['id']}", disabled="true")
    fires(play, "MeteringWebhookFailures", lambda: play.at_stripe("POST", "/v1/customers", description="anybody"))
    play.at_stripe("DELETE", f"/v1/webhook_endpoints/{new['id']}")
    play.at_stripe("POST", f"/v1/webhook_endpoints/{own['id']}", disabled="false")
    calms(play, "MeteringWebhookFailures")


def test_a_stripe_that_is_away_and_an_outbox_that_is_blocked_are_told(play: Scene) -> None:
    assert call(f"{play.stripe}/sandbox/faults", {"kind": "error_before", "count": 100_000})[0] == 200
    assert play.track("acme", "scans", 3) == 200
    fires(play, "MeteringStripeCallsFailing", lambda: play.post("/v1/billing/portal", org_id="acme"))
    fires(play, "MeteringOutboxStuck")
    assert play.length("outbox") == 1


def test_a_counter_that_somebody_changed_is_told_and_its_repair_too(play: Scene) -> None:
    assert play.track("edited", "scans", 2) == 200
    (key,) = play.raw.scan_iter(match="{p*}:o:edited", count=1000)
    play.raw.hincrby(key, "u:scans", 5)
    fires(play, "MeteringConservationViolation")
    assert play.track("edited", "scans", 1) == 200  # counted all the same
    play.raw.hincrby(key, "u:scans", -5)
    calms(play, "MeteringConservationViolation")


def test_an_organisation_whose_data_is_corrupt_is_told(play: Scene) -> None:
    assert play.track("victim", "scans", 1) == 200
    (key,) = play.raw.scan_iter(match="{p*}:o:victim", count=1000)
    play.raw.hset(key, "u:scans", "many")

    def use() -> None:
        play.track("victim", "scans", 1)

    fires(play, "MeteringOrgParked", use)


def test_a_store_that_is_killed_is_told_and_its_return_too(play: Scene) -> None:
    play.store.kill()
    fires(play, "MeteringStoreDown")
    play.store.start()
    calms(play, "MeteringStoreDown")
    assert play.track("acme", "scans", 1) == 200
