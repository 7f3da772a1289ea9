"""All organisations, for those who look after them: GET /v1/admin/orgs and GET /v1/admin/usage."""

from typing import Any, Final

from metering.api.models.admin import OrgsQuery, UsageQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import org_view, shown, with_holds
from metering.store.org import Org

LOOKED_AT_MAX: Final = 500
"""Organisations that one request reads: what no filter lets through costs as much, and a page may be short for it."""

_USED: Final = ("current", "limit", "remaining", "percent", "overage")


async def list_orgs(call: Call) -> Reply:
    """One page of the organisations that the filters let through."""
    orgs, following = await _walk(call, call.asked(OrgsQuery))
    rows = [{**await shown(call, await with_holds(call, org)), **_subscription(org)} for org in orgs]
    return json_reply({"data": rows, "next_cursor": following})


async def list_usage(call: Call) -> Reply:
    """The same page by feature."""
    query = call.asked(UsageQuery)
    orgs, following = await _walk(call, query)
    views = [org_view(await with_holds(call, org), call.caller, None) for org in orgs]
    rows = [row for view in views for row in _by_feature(view) if query.feature in {None, row["feature"]}]
    return json_reply({"data": rows, "next_cursor": following})


async def _walk(call: Call, query: OrgsQuery) -> tuple[list[Org], str | None]:
    """Up to a page of organisations that fit, out of so many, and where the next page goes on."""
    found: list[Org] = []
    cursor, looked_at = query.cursor, 0
    while True:
        wanted = min(query.limit - len(found), LOOKED_AT_MAX - looked_at)
        orgs, cursor = await call.services.orgs.page(cursor, wanted)
        found += [org for org in orgs if _fits(org, query)]
        looked_at += wanted
        if cursor is None or len(found) >= query.limit or looked_at >= LOOKED_AT_MAX:
            return found, cursor


def _fits(org: Org, query: OrgsQuery) -> bool:
    sold = org.profile.subscription
    return (
        query.plan in {None, org.plan}
        and query.status in {None, "none" if sold is None else sold.status}
        and query.overdue in {None, org.profile.payment_overdue}
        and org.org_id.startswith(query.starts or "")
    )


def _subscription(org: Org) -> dict[str, Any]:
    sold = org.profile.subscription
    return {
        "subscription_status": None if sold is None else sold.status,
        "cancel_at_period_end": sold is not None and sold.cancel_at_period_end,
    }


def _by_feature(view: dict[str, Any]) -> list[dict[str, Any]]:
    whose = {name: view[name] for name in ("org_id", "plan", "period")}
    return [
        {**whose, "feature": name, **{kind: usage[kind] for kind in _USED}} for name, usage in view["features"].items()
    ]
