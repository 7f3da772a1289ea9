"""Alerts: whole, with a page each, and each fires on its fault and not before. Judged by the real promtool."""

import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.house.repo import ROOT
from tests.operators.files import ALERTS, GRAFANA, alerts, missing_programs, promtool, write_yaml, yaml_of

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
API: Final = "scorpius_usage_api_duration_seconds"
AT: Final = '{job="usage-metering",instance="a"'


class Case(NamedTuple):
    """A fault as series over minutes; quiet `until` that minute, and telling at `fires`."""

    series: dict[str, str]
    until: str
    fires: str


def started(units: str) -> dict[str, str]:
    return {f'scorpius_billing_events_total{AT},event_type="overage_started"}}': units}


def gauge(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {f"{name}{AT}{labels}}}": values}


CASES: Final[dict[str, Case]] = {
    "MeteringDown": Case(gauge("up", "1 1 0x10"), "3m", "5m"),
    "MeteringStoreDown": Case(gauge("metering_store_up", "1 1 0x10"), "2m", "4m"),
    "MeteringStoreNotDurable": Case(gauge("metering_lossy_ledger", "0 1x20"), "5m", "7m"),
    "MeteringApiErrors": Case(
        gauge(f"{API}_count", "0+1000x40", ',status="2xx"') | gauge(f"{API}_count", "0x10 0+100x30", ',status="5xx"'),
        "10m", "20m",
    ),
    "MeteringApiSlow": Case(
        gauge(f"{API}_bucket", "0+100x10 1000+1x30", ',le="0.1"')
        | gauge(f"{API}_bucket", "0+100x40", ',le="0.25"')
        | gauge(f"{API}_bucket", "0+100x40", ',le="+Inf"'),
        "12m", "30m",
    ),
    "MeteringOverageSpike": Case(started("0x1440 0+5x60"), "1440m", "1460m"),
    "MeteringPaymentFailures": Case(
        {f'scorpius_billing_events_total{AT},event_type="invoice.payment_failed"}}': "0x10 0+1x60"}, "12m", "25m"
    ),
    "MeteringOutboxStuck": Case(gauge("metering_overage_oldest_seconds", "0+60x100"), "65m", "72m"),
    "MeteringDeadLetters": Case(
        gauge("metering_overage_entries", "0x5 2x20", ',state="dead"')
        | gauge("metering_queue_dead", "0x30") | gauge("metering_stripe_inbox_dead", "0x30"),
        "9m", "12m",
    ),
    "MeteringStripeDrift": Case(gauge("metering_stripe_drift_units", "0x5 7x40"), "19m", "22m"),
    "MeteringStripeCallsFailing": Case(
        gauge("metering_stripe_calls_total", "0+10x20 200x40", ',outcome="ok"')
        | gauge("metering_stripe_calls_total", "0x20 0+10x40", ',outcome="unknown"'),
        "30m", "45m",
    ),
    "MeteringWebhookFailures": Case(
        gauge("metering_webhooks_total", "0+10x20 200x40", ',outcome="kept"')
        | gauge("metering_webhooks_total", "0x20 0+10x40", ',outcome="forged"'),
        "25m", "45m",
    ),
    "MeteringStripeInboxStuck": Case(gauge("metering_stripe_inbox_oldest_seconds", "0+60x60"), "19m", "24m"),
    "MeteringConservationViolation": Case(gauge("metering_conservation_violations", "0x5 1x20"), "5m", "8m"),
    "MeteringQueueStuck": Case(gauge("metering_queue_oldest_seconds", "0+60x60"), "9m", "13m"),
    "MeteringOrgParked": Case(gauge("metering_batch_parked_total", "0x10 1x30"), "10m", "13m"),
    "MeteringJobFailing": Case(gauge("metering_job_failures_total", "0x10 0+1x60", ',loop="overage"'), "15m", "40m"),
}  # fmt: skip
"""The alert, and the fault that it is for."""


def test_a_build_machine_has_the_judges() -> None:
    missing = missing_programs(os.environ.get("CI"))
    assert not missing, missing


def test_every_alert_has_a_case() -> None:
    assert {rule["alert"] for rule in alerts()} == set(CASES)


def test_the_rules_and_the_configuration_are_good(tmp_path: Path) -> None:
    promtool("check", "rules", ALERTS)
    for name in ("alerts.yml", "prometheus.yml"):
        (tmp_path / name).write_text((GRAFANA / name).read_text())
    (tmp_path / "metrics-token").write_text("secret")
    promtool("check", "config", tmp_path / "prometheus.yml")


def test_each_alert_fires_on_its_fault_and_not_before(tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "name": name,
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "alert_rule_test": [_expected(name, case.until, fires=False), _expected(name, case.fires, fires=True)],
        }
        for name, case in CASES.items()
    ]
    names_only = tmp_path / "alerts.yml"  # promtool compares annotations word by word; test_every_alert_says holds them
    rules = yaml_of(ALERTS)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["annotations"] = {}
            rule["labels"] |= {"job": "usage-metering", "instance": "a", "loop": "overage"}
    write_yaml(rules, names_only)
    tested = tmp_path / "tests.yml"
    write_yaml({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}, tested)
    promtool("test", "rules", tested)


def _expected(name: str, at: str, *, fires: bool) -> dict[str, Any]:
    """What promtool is to find at a minute. The copy of the rules gives all the labels that some have."""
    severity = next(rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name)
    labels = {"severity": severity, "job": "usage-metering", "instance": "a", "loop": "overage"}
    return {"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": labels}] if fires else []}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_it_means_and_where_to_look(rule: dict[str, Any]) -> None:
    name, said = rule["alert"], rule["annotations"]
    assert re.fullmatch(r"Metering([A-Z][a-z]+)+", name)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(said) == {"summary", "description", "runbook_url"}
    assert said["runbook_url"] == f"docs/runbooks/{name}.md"
    page = (ROOT / said["runbook_url"]).read_text()
    assert re.findall(r"(?m)^#+ (.*)$", page) == [name, "Meaning", "First look", "Cure"]


def test_no_page_is_left_over_and_their_links_lead_somewhere() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(CASES)
    for page in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} leads to {link}"
