"""Writes the dashboards beside this file from the panels described here: `python -m grafana.make`.

They are provisioned as they are: the data source is a variable (nothing fills `__inputs` in provisioned files,
grafana/grafana issue 10786), ids and positions are given, and every panel has a unit, a title, and a text that says
what it shows. Figures of the business are the same from every replica, so they are never added up over instances:
`max without (instance)`. Figures of the service are each replica's own: `sum`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
S: Final = 'job=~"$job",instance=~"$instance"'
"""Which service: in every selector."""

WIDTH: Final = 24
COLUMNS: Final = 3
HEIGHT: Final = 8
SCHEMA: Final = 39
"""Of Grafana 10.4 and later; newer ones read it and bring it up to theirs."""

ORG: Final = 'org_id="$org"'
API: Final = "scorpius_usage_api_duration_seconds"
NOT_5XX: Final = 'status!="5xx"'
BY_ROUTE: Final = "sum by (method, endpoint)"
WITHIN: Final = 'le="0.1"'
BELIEVED: Final = 'outcome!~"malformed|forged|stale|early|unreadable"'


@dataclass(frozen=True)
class Panel:
    """`queries` are PromQL with what names their series; `runbook` the alert that watches the same."""

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    runbook: str = ""


def everywhere(name: str, labels: str = "") -> str:
    """A figure of the business, of whichever replica."""
    return f"max without (instance) ({name}{{{S}{',' if labels else ''}{labels}}})"


def growth(name: str, window: str = "$__rate_interval", labels: str = "", by: str = "rate") -> str:
    """How a counter of the business grows."""
    return f"max without (instance) ({by}({name}{{{S}{',' if labels else ''}{labels}}}[{window}]))"


def work(name: str, labels: str = "", window: str = "$__rate_interval", by: str = "rate") -> str:
    """How a counter of the service grows, on each replica."""
    return f"{by}({name}{{{S}{',' if labels else ''}{labels}}}[{window}])"


def quantile(share: str, name: str, by: str = "") -> str:
    """A quantile of a histogram of the service."""
    return f"histogram_quantile({share}, sum by ({by}le) ({work(name + '_bucket')}))"


ORGANISATIONS: Final = (
    Panel(
        "Organisations",
        "How many there are now.",
        "short",
        ((f"max({everywhere('scorpius_total_organizations')})", "organisations"),),
        "stat",
    ),
    Panel(
        "Organisations won",
        "By how many the number grew in the time shown.",
        "short",
        (
            (
                (
                    f"max(max_over_time(scorpius_total_organizations{{{S}}}[$__range]))"
                    f" - min(min_over_time(scorpius_total_organizations{{{S}}}[$__range]))"
                ),
                "won",
            ),
        ),
        "stat",
    ),
    Panel(
        "Organisations by plan",
        "How many are on each plan.",
        "short",
        ((f"sum by (plan) ({everywhere('scorpius_plan_distribution')})", "{{plan}}"),),
    ),
)

USAGE: Final = (
    Panel(
        "Units by feature",
        "Units (not events) used a second, all organisations together.",
        "short",
        ((f"sum by (feature) ({growth('scorpius_feature_usage_total')})", "{{feature}}"),),
    ),
    Panel(
        "Units by plan",
        "Units used a second, by the plan of whoever used them.",
        "short",
        ((f"sum by (plan) ({growth('scorpius_feature_usage_total')})", "{{plan}}"),),
    ),
    Panel(
        "Units by feature and plan, ever",
        "Units since the data set began; corrections do not lower them.",
        "short",
        ((f"sum by (feature, plan) ({everywhere('scorpius_feature_usage_total')})", "{{feature}}, {{plan}}"),),
        "bargauge",
    ),
    Panel(
        "Units taken out",
        "Units that corrections took out ever. What the counters hold is units ever less these.",
        "short",
        ((f"sum by (feature) ({everywhere('scorpius_feature_usage_taken_out_total')})", "{{feature}}"),),
        "bargauge",
    ),
    Panel(
        "Top organisations",
        "Units ever of those with the most. METRICS_TOP_ORGS organisations have a series.",
        "short",
        ((f"topk(10, {everywhere('scorpius_org_usage_total')})", "{{org_id}}"),),
        "bargauge",
    ),
    Panel(
        "Top organisations now",
        "Units a second of the ten that use most, among those with a series.",
        "short",
        ((f"topk(10, sum by (org_id) ({growth('scorpius_usage_total')}))", "{{org_id}}"),),
    ),
)

BILLING: Final = (
    Panel(
        "Billing events",
        "What was written into the trails in the last hour: plan changes, overage begun, payments, corrections.",
        "short",
        (
            (
                f"sum by (event_type) ({growth('scorpius_billing_events_total', '1h', by='increase')})",
                "{{event_type}}",
            ),
        ),
        runbook="MeteringOverageSpike",
    ),
    Panel(
        "Overage on its way",
        "Counters not sealed, windows Stripe has not taken, windows refused, counters of which nobody pays.",
        "short",
        ((f"max by (state) ({everywhere('metering_overage_entries')})", "{{state}}"),),
        runbook="MeteringDeadLetters",
    ),
    Panel(
        "Oldest overage",
        "Age of the oldest overage that somebody pays for and Stripe was not told of.",
        "s",
        ((f"max({everywhere('metering_overage_oldest_seconds')})", "oldest"),),
        runbook="MeteringOutboxStuck",
    ),
    Panel(
        "Windows delivered",
        "Windows of overage that Stripe took ever: new to it, or known, as the answer before was lost.",
        "short",
        ((f"max by (how) ({everywhere('metering_overage_delivered_total')})", "{{how}}"),),
    ),
    Panel(
        "Drift",
        "Units by which Stripe's sums differed from our books at the last reconciliation. 0 is right.",
        "short",
        ((f"max({everywhere('metering_stripe_drift_units')})", "units"),),
        "stat",
        "MeteringStripeDrift",
    ),
    Panel(
        "Books that do not add up",
        "Organisations whose units, history and overage do not fit together. They are not billed until they do.",
        "short",
        ((f"max({everywhere('metering_conservation_violations')})", "organisations"),),
        "stat",
        "MeteringConservationViolation",
    ),
    Panel(
        "Looks at the books",
        "Organisations looked at a second, by whether their sums held.",
        "ops",
        ((f"sum by (outcome) ({work('metering_conservation_checks_total')})", "{{outcome}}"),),
        runbook="MeteringConservationViolation",
    ),
    Panel(
        "Last reconciliation",
        "When our books and Stripe's sums were compared last.",
        "dateTimeFromNow",
        ((f"1000 * max({everywhere('metering_stripe_reconciled_seconds')})", "reconciled"),),
        "stat",
        "MeteringStripeDrift",
    ),
)

ORDERS: Final = "metering_order_value_minor"
REFUNDS: Final = "metering_refund_value_minor"
STAYED: Final = "metering_refund_failed_value_minor"
SHOWN: Final = "$__range"
PAID: Final = 'outcome="succeeded"'
BY_CURRENCY: Final = "sum by (currency)"


def each_order(figure: str) -> str:
    """A figure of refunds, less that of those that failed, for that of the orders."""
    refunds, stayed, orders = (everywhere(f"{name}_{figure}") for name in (REFUNDS, STAYED, ORDERS))
    return f"({BY_CURRENCY} ({refunds}) - {BY_CURRENCY} ({stayed})) / ({BY_CURRENCY} ({orders}) > 0)"


SALES: Final = (
    Panel(
        "Payments that succeed",
        "Share of the attempts to pay in the time shown that succeeded, for credits and for invoices.",
        "percentunit",
        (
            (
                (
                    f"sum({growth('metering_payments_total', SHOWN, PAID, 'increase')})"
                    f" / (sum({growth('metering_payments_total', SHOWN, by='increase')}) > 0)"
                ),
                "succeeded",
            ),
        ),
        "stat",
        "MeteringPaymentFailures",
    ),
    Panel(
        "Payments, ever",
        "Payments that succeeded and attempts that failed, for credits and for invoices.",
        "short",
        ((f"sum by (kind, outcome) ({everywhere('metering_payments_total')})", "{{kind}}, {{outcome}}"),),
        "bargauge",
        "MeteringPaymentFailures",
    ),
    Panel(
        "Mean order value",
        "What an order of credits in the time shown was worth, in minor units of its currency (cents of dollars).",
        "short",
        (
            (
                (
                    f"{BY_CURRENCY} ({growth(ORDERS + '_sum', SHOWN, by='increase')})"
                    f" / ({BY_CURRENCY} ({growth(ORDERS + '_count', SHOWN, by='increase')}) > 0)"
                ),
                "{{currency}}",
            ),
        ),
        "stat",
    ),
    Panel(
        "Orders by package, ever",
        "Orders of credits that were paid, by package: how popular each is.",
        "short",
        ((f"sum by (currency, package) ({everywhere(ORDERS + '_count')})", "{{package}} credits, {{currency}}"),),
        "bargauge",
    ),
    Panel(
        "Orders and refunds",
        "What was paid for credits in a second and what was given back of it, in minor units.",
        "short",
        (
            (f"{BY_CURRENCY} ({growth(ORDERS + '_sum')})", "orders, {{currency}}"),
            (f"{BY_CURRENCY} ({growth(REFUNDS + '_sum')})", "refunds, {{currency}}"),
        ),
    ),
    Panel(
        "Refund rate, ever",
        "Refunds of credits for each order, less the refunds that failed: by their number, and by their value.",
        "percentunit",
        ((each_order("count"), "number, {{currency}}"), (each_order("sum"), "value, {{currency}}")),
        "stat",
    ),
)

STRIPE: Final = (
    Panel(
        "Calls to Stripe",
        "Calls a second by what became of them; unknown may have happened, barred says that the key does not hold.",
        "reqps",
        ((f"sum by (outcome) ({work('metering_stripe_calls_total')})", "{{outcome}}"),),
        runbook="MeteringStripeCallsFailing",
    ),
    Panel(
        "Webhooks",
        "Webhooks a second by what became of them.",
        "reqps",
        ((f"sum by (outcome) ({work('metering_webhooks_total')})", "{{outcome}}"),),
        runbook="MeteringWebhookFailures",
    ),
    Panel(
        "Webhooks believed",
        "Share of the webhooks in the time shown whose signature held.",
        "percentunit",
        (
            (
                (
                    f"sum({work('metering_webhooks_total', BELIEVED, SHOWN, 'increase')})"
                    f" / sum({work('metering_webhooks_total', window=SHOWN, by='increase')})"
                ),
                "believed",
            ),
        ),
        "stat",
        "MeteringWebhookFailures",
    ),
    Panel(
        "Stripe's events waiting",
        "Events that came in and have not taken effect, and those that could not.",
        "short",
        (
            (f"max({everywhere('metering_stripe_inbox_entries')})", "waiting"),
            (f"max({everywhere('metering_stripe_inbox_dead')})", "dead"),
        ),
        runbook="MeteringDeadLetters",
    ),
    Panel(
        "Oldest event of Stripe",
        "Age of the oldest event of Stripe that has not taken effect.",
        "s",
        ((f"max({everywhere('metering_stripe_inbox_oldest_seconds')})", "oldest"),),
        runbook="MeteringStripeInboxStuck",
    ),
)

REQUESTS: Final = (
    Panel(
        "Requests",
        "Requests a second by class of status.",
        "reqps",
        ((f"sum by (status) ({work(API + '_count')})", "{{status}}"),),
        runbook="MeteringApiErrors",
    ),
    Panel(
        "Requests in error",
        "Share of requests that ended in 5xx. The promise is none but while the store is away.",
        "percentunit",
        (
            (
                f"1 - sum({work(API + '_count', NOT_5XX)}) / sum({work(API + '_count')})",
                "5xx",
            ),
        ),
        runbook="MeteringApiErrors",
    ),
    Panel(
        "Duration",
        "Half, 95 and 99 of 100 requests took no longer. The promise is 95 of 100 within 100 ms.",
        "s",
        tuple((quantile(share, API), f"p{share[2:]:0<2}") for share in ("0.5", "0.95", "0.99")),
        runbook="MeteringApiSlow",
    ),
    Panel(
        "Within 100 ms",
        "Share of requests answered within 100 ms.",
        "percentunit",
        (
            (
                f"sum({work(API + '_bucket', WITHIN)}) / sum({work(API + '_count')})",
                "within",
            ),
        ),
        runbook="MeteringApiSlow",
    ),
    Panel(
        "Mean duration by endpoint",
        "Of each route.",
        "s",
        (
            (
                f"{BY_ROUTE} ({work(API + '_sum')}) / ({BY_ROUTE} ({work(API + '_count')}) > 0)",
                "{{method}} {{endpoint}}",
            ),
        ),
        runbook="MeteringApiSlow",
    ),
    Panel(
        "Refusals",
        "Requests a second that were answered with a problem, by its code; most say that a limit does its work.",
        "reqps",
        ((f"sum by (code) ({work('metering_refusals_total')}) > 0", "{{code}}"),),
    ),
    Panel(
        "Events",
        "Usage events a second by what became of them; duplicates were counted before.",
        "cps",
        ((f"sum by (outcome) ({work('metering_events_total')})", "{{outcome}}"),),
    ),
)

STORE: Final = (
    Panel(
        "Store",
        "Whether the store answered the last scrape of every replica.",
        "bool_on_off",
        ((f"min(metering_store_up{{{S}}})", "answers"),),
        "stat",
        "MeteringStoreDown",
    ),
    Panel(
        "Lossy or embedded",
        "Whether the store may lose acknowledged events, and whether the service runs it itself.",
        "bool_yes_no",
        (
            (f"max(metering_lossy_ledger{{{S}}})", "may lose events"),
            (f"max(metering_embedded_store{{{S}}})", "embedded"),
        ),
        "stat",
        "MeteringStoreNotDurable",
    ),
    Panel(
        "Releases",
        "How many replicas run which release.",
        "short",
        ((f"count by (version) (metering_build_info{{{S}}})", "{{version}}"),),
        "stat",
    ),
    Panel(
        "Calls of the store",
        "Time of half and of 99 of 100 script calls with events: the store, its disk and the way there.",
        "s",
        tuple((quantile(share, "metering_store_call_seconds"), f"p{share[2:]:0<2}") for share in ("0.5", "0.99")),
        runbook="MeteringApiSlow",
    ),
    Panel(
        "Events a call",
        "How many events went out together; more where there is more to do.",
        "short",
        (
            (
                f"sum({work('metering_batch_size_events_sum')}) / sum({work('metering_batch_size_events_count')})",
                "events",
            ),
        ),
    ),
    Panel(
        "Batches",
        "Calls, and events that they answered, a second.",
        "ops",
        (
            (f"sum({work('metering_batch_calls_total')})", "calls"),
            (f"sum({work('metering_batch_events_total')})", "events"),
        ),
    ),
    Panel(
        "Asked again, shed, set aside",
        "Events a second that were asked again or turned away for want of room, and organisations set aside.",
        "ops",
        (
            (f"sum({work('metering_batch_retries_total')})", "again"),
            (f"sum({work('metering_batch_shed_total')})", "shed"),
            (f"sum({work('metering_batch_parked_total')})", "set aside"),
        ),
        runbook="MeteringOrgParked",
    ),
    Panel(
        "Loop lag",
        "How late the loops of the workers were, in 99 of 100 looks.",
        "s",
        ((quantile("0.99", "metering_loop_lag_seconds"), "p99"),),
        runbook="MeteringApiSlow",
    ),
    Panel(
        "Jobs that failed",
        "Turns an hour that failed, by job. A turn that failed is made again.",
        "short",
        (
            (
                f"sum by (loop) (3600 * {work('metering_job_failures_total')})",
                "{{loop}}",
            ),
        ),
        runbook="MeteringJobFailing",
    ),
    Panel(
        "Events accepted first",
        "Events accepted with ack=async that wait, and those given up.",
        "short",
        (
            (f"max({everywhere('metering_queue_entries')})", "waiting"),
            (f"max({everywhere('metering_queue_dead')})", "dead"),
        ),
        runbook="MeteringDeadLetters",
    ),
    Panel(
        "Oldest event accepted first",
        "Age of the oldest event that waits to be counted.",
        "s",
        ((f"max({everywhere('metering_queue_oldest_seconds')})", "oldest"),),
        runbook="MeteringQueueStuck",
    ),
    Panel(
        "What became of them",
        "Events accepted with ack=async, a second.",
        "cps",
        tuple(
            (f"sum({work(f'metering_queue_{name}_total')})", name.replace("_", " "))
            for name in ("counted", "duplicates", "refused", "given_up")
        ),
    ),
)

ROWS: Final = (
    ("Organisations", ORGANISATIONS),
    ("Usage", USAGE),
    ("Billing and overage", BILLING),
    ("Sales", SALES),
    ("Stripe", STRIPE),
    ("API", REQUESTS),
    ("Store and workers", STORE),
)

ONE: Final = (
    (
        "One organisation",
        (
            Panel(
                "Units ever",
                "All features together.",
                "short",
                ((f"max({everywhere('scorpius_org_usage_total', ORG)})", "units"),),
                "stat",
            ),
            Panel(
                "Units in the time shown",
                "By feature.",
                "short",
                (
                    (
                        f"sum by (feature) ({growth('scorpius_usage_total', '$__range', ORG, 'increase')})",
                        "{{feature}}",
                    ),
                ),
                "bargauge",
            ),
            Panel(
                "Its units by feature and plan, ever",
                "By the plan it was on when it used them; a plan change begins another series.",
                "short",
                (
                    (
                        f"sum by (feature, plan) ({everywhere('scorpius_usage_total', ORG)})",
                        "{{feature}}, {{plan}}",
                    ),
                ),
                "bargauge",
            ),
            Panel(
                "Units by feature",
                "Units used a second.",
                "short",
                ((f"sum by (feature) ({growth('scorpius_usage_total', labels=ORG)})", "{{feature}}"),),
            ),
            Panel(
                "Share of all units, ever",
                "Of the units that all organisations used.",
                "percentunit",
                (
                    (
                        (
                            f"sum({everywhere('scorpius_org_usage_total', ORG)})"
                            f" / sum({everywhere('scorpius_feature_usage_total')})"
                        ),
                        "share",
                    ),
                ),
                "stat",
            ),
        ),
    ),
)

# ── as Grafana has it ────────────────────────────────────────────────────────────────────────────────────


def target(number: int, expr: str, legend: str, panel: Panel) -> dict[str, Any]:
    """One query. Single figures are asked for now, the others over time."""
    instant = panel.kind != "timeseries"
    ref = chr(ord("A") + number)
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": expr,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def shown(panel: Panel, number: int, x: int, y: int, width: int) -> dict[str, Any]:
    """One panel at its place."""
    link = {"title": panel.runbook, "url": f"${{runbooks}}/{panel.runbook}.md", "targetBlank": True}
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {},
        "targets": [target(place, expr, legend, panel) for place, (expr, legend) in enumerate(panel.queries)],
        "links": [link] if panel.runbook else [],
    }
    if panel.kind == "stat":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return made


def laid_out(rows: tuple[tuple[str, tuple[Panel, ...]], ...]) -> Iterator[dict[str, Any]]:
    """Rows with their panels, three in a line."""
    number, y = 1, 0
    for title, panels in rows:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, y = number + 1, y + 1
        for at, panel in enumerate(panels):
            width = WIDTH // COLUMNS
            yield shown(panel, number, at % COLUMNS * width, y + at // COLUMNS * HEIGHT, width)
            number += 1
        y += -(-len(panels) // COLUMNS) * HEIGHT


def values_of(name: str, label: str, query: str, *, many: bool) -> dict[str, Any]:
    """A variable with the values of a label."""
    made: dict[str, Any] = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
    }
    return made | ({"allValue": ".+", "current": {"text": "All", "value": "$__all"}} if many else {})


def variables(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """Data source, job, instance, and where the runbooks are served."""
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        values_of("job", "Job", "label_values(metering_build_info, job)", many=True),
        values_of("instance", "Instance", 'label_values(metering_build_info{job=~"$job"}, instance)', many=True),
        *more,
        {
            "name": "runbooks",
            "label": "Runbooks",
            "type": "textbox",
            "query": "/docs/runbooks",
            "current": {"text": "/docs/runbooks", "value": "/docs/runbooks"},
        },
    ]


def dashboard(uid: str, title: str, rows: Any, listed: list[dict[str, Any]]) -> dict[str, Any]:
    """A dashboard as it is provisioned."""
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "tags": ["usage-metering"],
        "editable": False,
        "schemaVersion": SCHEMA,
        "version": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": listed},
        "annotations": {"list": []},
        "links": [
            {
                "title": "Usage metering",
                "type": "dashboards",
                "tags": ["usage-metering"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": list(laid_out(rows)),
    }


def dashboards() -> dict[str, dict[str, Any]]:
    """Both, by the name of their file."""
    org = values_of("org", "Organisation", 'label_values(scorpius_org_usage_total{job=~"$job"}, org_id)', many=False)
    return {
        "usage-dashboard.json": dashboard("usage-metering", "Usage metering", ROWS, variables()),
        "organisation-dashboard.json": dashboard("usage-metering-org", "One organisation", ONE, variables(org)),
    }


def text_of(made: dict[str, Any]) -> str:
    """As it is written."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, made in dashboards().items():
        (FOLDER / name).write_text(text_of(made), encoding="utf-8")
