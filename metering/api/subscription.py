"""An organisation's subscription: /v1/billing/subscription, and what customers do about it."""

from typing import Any

from metering.api.billing import plan_named
from metering.api.models.subscription import CancelRequest, ChangeRequest, ResumeRequest, SubscriptionQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found, span
from metering.billing.following import held
from metering.billing.plan_change import Quote
from metering.moments import rfc3339
from metering.store.org import Org


async def get_subscription(call: Call) -> Reply:
    """The subscription of one organisation, as Stripe told of it last."""
    return json_reply(subscription_view(await found(call, call.asked(SubscriptionQuery).org_id)))


async def cancel_subscription(call: Call) -> Reply:
    """Let the subscription end, now or with its period."""
    body, subscriber = call.sent(CancelRequest), call.services.at_stripe().subscriber
    end = subscriber.cancel_with_period if body.at_period_end else subscriber.cancel_now
    org = await end(await found(call, body.org_id), name=call.name(), by=call.caller.subject)
    return json_reply(subscription_view(org))


async def resume_subscription(call: Call) -> Reply:
    """Let a subscription go on that was to end with its period."""
    org = await found(call, call.sent(ResumeRequest).org_id)
    subscriber = call.services.at_stripe().subscriber
    return json_reply(subscription_view(await subscriber.resume(org, name=call.name(), by=call.caller.subject)))


async def change_subscription(call: Call) -> Reply:
    """Let the subscription be for another plan."""
    body, plan_change = call.sent(ChangeRequest), call.services.at_stripe().plan_change
    plan = plan_named(body.plan, call.services.catalogue).name
    org = await found(call, body.org_id)
    after = await plan_change.make(org, plan, body.proration, name=call.name(), by=call.caller.subject)
    return json_reply(subscription_view(after))


async def preview_subscription(call: Call) -> Reply:
    """What that would cost."""
    body, plan_change = call.sent(ChangeRequest), call.services.at_stripe().plan_change
    plan = plan_named(body.plan, call.services.catalogue).name
    org = await found(call, body.org_id)
    quote = await plan_change.quote(org, plan, body.proration)
    known = {"org_id": org.org_id, "plan": held(org)[0].plan, "plan_previewed": plan, "proration": body.proration}
    return json_reply(known | quote_view(quote))


def quote_view(quote: Quote) -> dict[str, Any]:
    """An invoice to come as the wire shows it."""
    lines = [
        {"description": line.words, "amount_minor": line.amount_minor, "proration": line.proration,
         "period": span(line.period)}
        for line in quote.lines
    ]  # fmt: skip
    return {
        "currency": quote.currency,
        "billed": "now" if quote.at_once else "next_invoice",
        "total_minor": quote.total_minor,
        "due_minor": quote.due_minor,
        "lines": lines,
        "lines_left_out": not quote.whole,
    }


def subscription_view(org: Org) -> dict[str, Any]:
    """The subscription as the wire shows it; of an organisation that has none, the plan alone."""
    profile, sold = org.profile, org.profile.subscription
    ends_ms = None if sold is None else sold.ended_ms or sold.stops_ms
    return {
        "org_id": org.org_id,
        "plan": org.plan,
        "status": None if sold is None else sold.status,
        "subscription_id": None if sold is None else sold.id,
        "stripe_customer_id": profile.stripe_customer_id,
        "plan_subscribed": None if sold is None else sold.plan,
        "started_at": None if sold is None else rfc3339(sold.since_ms),
        "period": span(org.period),
        "cancel_at_period_end": sold is not None and sold.cancel_at_period_end,
        "ends_at": _moment(ends_ms),
        "trial_ends_at": _moment(None if sold is None else sold.trial_end_ms),
        "payment_overdue": profile.payment_overdue,
        "grace_ends_at": _moment(profile.grace_end_ms),
        "metered": [] if sold is None else sorted(sold.metered),
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
