"""Automatic top-ups: /v1/credits/auto-topup."""

from typing import Any, Final

from metering.api.bodies import fault, invalid
from metering.api.models.credits import BalanceQuery
from metering.api.models.topups import TopUpRequest
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found
from metering.clock import MS_PER_S
from metering.log import request_id
from metering.moments import rfc3339
from metering.store.grants import By
from metering.store.org import Org
from metering.store.topups import Rule, TopUp

_NEEDED: Final = ("threshold", "package", "max_amount_per_month")


async def set_top_up(call: Call) -> Reply:
    """Set when credits are bought by themselves. Raises OrgNotFound, Invalid, PackageUnknown, NoPayer."""
    body, stripe = call.sent(TopUpRequest), call.services.at_stripe()
    org = await found(call, body.org_id)
    rule, by = _rule_of(body), By(call.caller.subject, "automatic top-ups set", request_id.get())
    if rule is None or body.threshold is None:
        await stripe.top_up.turn_off(org, by)
    elif rule.enabled and rule.per_month < (price_minor := stripe.credits.package(rule.package).price_minor):
        raise invalid([fault("/max_amount_per_month", "out-of-range", f"one package costs {price_minor}")])
    else:
        await stripe.top_up.set(org, rule, body.threshold, by)
    return json_reply(await _view(call, org))


def _rule_of(body: TopUpRequest) -> Rule | None:
    """The rule that is asked for; None where top-ups are only to be off. Raises Invalid where something is missing."""
    package, per_month = body.package, body.max_amount_per_month
    if package is not None and per_month is not None and body.threshold is not None:
        return Rule(body.enabled, package, body.max_per_day, per_month, body.cooldown_s * MS_PER_S)
    missing = [name for name in _NEEDED if getattr(body, name) is None]
    if body.enabled or len(missing) < len(_NEEDED):
        raise invalid([fault(f"/{name}", "missing", "the field is missing") for name in missing])
    return None


async def get_top_up(call: Call) -> Reply:
    """How an organisation's credits are bought by themselves. Raises OrgNotFound."""
    return json_reply(await _view(call, await found(call, call.asked(BalanceQuery).org_id)))


async def _view(call: Call, org: Org) -> dict[str, Any]:
    """What is set, what was done, and what stopped it."""
    services = call.services
    top_up = services.at_stripe().top_up
    kept = await top_up.find(org.org_id)
    mark = (await services.credits.balance_of(org)).low_mark
    day, month = top_up.used(kept) if kept else (0, 0)
    rule = kept.rule if kept else None
    return {
        "org_id": org.org_id, "status": _status(kept), "enabled": bool(rule and rule.enabled), "threshold": mark,
        "package": rule and rule.package, "max_per_day": rule and rule.per_day,
        "max_amount_per_month": rule and rule.per_month, "cooldown_s": rule and rule.cooldown_ms // MS_PER_S,
        "currency": services.catalogue.currency, "attempts_in_24_hours": day, "amount_in_31_days": month,
        "paused": _paused(kept),
    }  # fmt: skip


def _status(kept: TopUp | None) -> str:
    if kept is not None and kept.attempt is not None:
        return "charging"
    if kept is None or not kept.rule.enabled:
        return "off"
    return "paused" if kept.stopped else "ready"


def _paused(kept: TopUp | None) -> dict[str, str] | None:
    if kept is None or kept.stopped is None:
        return None
    return {"reason": kept.stopped.why, "detail": kept.stopped.detail, "at": rfc3339(kept.stopped.at_ms)}
