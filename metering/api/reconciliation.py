"""Reconciliation: our books and Stripe's, side by side."""

from typing import Any, Final

from metering.api.guard import visible
from metering.api.models.reconciliation import ReconciliationQuery, RepairQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.services import Comparer
from metering.api.sheets import sheet
from metering.api.usage import span
from metering.billing.reconcile import Line
from metering.billing.repair import Step
from metering.errors import OrgNotFound, StripeNotConfigured
from metering.moments import parse_ms, rfc3339
from metering.store.org import Org

HEAD: Final = (
    "org_id", "feature", "period_start", "period_end", "customer", "overage", "sealed", "delivered", "written_off",
    "journal", "stripe", "drift", "verdict",
)  # fmt: skip
"""The columns of a sheet."""


async def get_reconciliation(call: Call) -> Reply:
    """One page of lines, as JSON or CSV."""
    query, comparer = call.asked(ReconciliationQuery), _comparer(call)
    orgs, following = await _orgs(call, query)
    lines = await comparer.of(orgs, None if query.period is None else parse_ms(query.period))
    if query.format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="reconciliation.csv"'}
        if following is not None:
            headers["X-Next-Cursor"] = following
        return Reply(csv_of(lines), kind=b"text/csv; charset=utf-8", headers=headers)
    return json_reply({"data": [line_view(line) for line in lines], "next_cursor": following})


async def run_reconciliation(call: Call) -> Reply:
    """Look at everything soon."""
    _comparer(call).run()
    return json_reply({"started": True}, 202)


async def repair(call: Call) -> Reply:
    """Repair what Stripe's sums prove, or show what would be done."""
    dry_run, repairer = call.asked(RepairQuery).dry_run == "true", call.services.repairer
    if repairer is None:
        raise StripeNotConfigured
    steps = await (repairer.plan() if dry_run else repairer.apply(by=call.caller.subject))
    return json_reply({"dry_run": dry_run, "data": [step_view(step) for step in steps]})


def step_view(step: Step) -> dict[str, Any]:
    """A step of a repair as the wire shows it."""
    cut = step.window.cut
    return {
        "window": step.window.id, "org_id": cut.org_id, "feature": cut.feature, "units": cut.units,
        "proof": step.proof.value,
    }  # fmt: skip


async def _orgs(call: Call, query: ReconciliationQuery) -> tuple[list[Org], str | None]:
    if query.org_id is None:
        return await call.services.orgs.page(query.cursor, query.limit)
    org = await call.services.orgs.get(visible(call.caller, query.org_id))
    if org is None:
        raise OrgNotFound
    return [org], None


def _comparer(call: Call) -> Comparer:
    if call.services.comparer is None:
        raise StripeNotConfigured
    return call.services.comparer


def csv_of(lines: list[Line]) -> bytes:
    """The lines as a sheet."""
    return sheet(HEAD, (cells_of(line) for line in lines))


def cells_of(line: Line) -> list[str | int | None]:
    """A line as a row of a sheet: what `HEAD` names."""
    return [
        line.org_id, line.feature, rfc3339(line.period.start_ms), rfc3339(line.period.end_ms), line.customer,
        line.overage, line.sealed, line.delivered, line.written_off, line.journal, line.stripe, line.drift,
        line.verdict.value,
    ]  # fmt: skip


def line_view(line: Line) -> dict[str, Any]:
    """A line as the wire shows it."""
    return {
        "org_id": line.org_id,
        "feature": line.feature,
        "period": span(line.period),
        "customer": line.customer or None,
        "overage": line.overage,
        "sealed": line.sealed,
        "delivered": line.delivered,
        "written_off": line.written_off,
        "journal": line.journal,
        "stripe": line.stripe,
        "drift": line.drift,
        "verdict": line.verdict.value,
    }
