"""Stripe's events, translated: both kinds of JSON in, one small value out, and one table of every type we take.

A snapshot (`object: event`) carries the object as it was, a thin event (`object: v2.core.event`) only its name; its
type is the snapshot's with `v1.` before it (https://docs.stripe.com/event-destinations). Of either only names are
taken: what became of the object is asked of Stripe when the event takes effect, because events come in any order and
more than once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Reaction(StrEnum):
    """What an event makes us do."""

    CHECKOUT = "checkout"
    """Link customer and subscription, or sell credits, once it is paid."""
    SUBSCRIPTION = "subscription"
    """Take over plan, status and period."""
    INVOICE_BEGUN = "invoice begun"
    """Push what the closed period still has."""
    INVOICE_COMING = "invoice coming"
    INVOICE_FINAL = "invoice final"
    """Freeze the period, or tell that it could not be finalised."""
    INVOICE_PAID = "invoice paid"
    INVOICE_UNPAID = "invoice unpaid"
    """Grace, then overdue."""
    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"
    CUSTOMER = "customer"
    """Unlink a customer who is gone."""
    ENTITLEMENTS = "entitlements"
    GRANT = "grant"
    ALERT = "alert"
    METER = "meter"
    """Usage that Stripe took and could not bill."""


_BY_REACTION: Final[Mapping[Reaction, str]] = {
    Reaction.CHECKOUT: """
        checkout.session.completed checkout.session.async_payment_succeeded
        checkout.session.async_payment_failed checkout.session.expired""",
    Reaction.SUBSCRIPTION: """
        customer.subscription.created customer.subscription.updated customer.subscription.deleted
        customer.subscription.paused customer.subscription.resumed customer.subscription.trial_will_end
        customer.subscription.pending_update_applied customer.subscription.pending_update_expired""",
    Reaction.INVOICE_BEGUN: "invoice.created",
    Reaction.INVOICE_COMING: "invoice.upcoming",
    Reaction.INVOICE_FINAL: "invoice.finalized invoice.finalization_failed",
    Reaction.INVOICE_PAID: "invoice.paid",
    Reaction.INVOICE_UNPAID: """
        invoice.payment_failed invoice.payment_action_required invoice.marked_uncollectible invoice.voided
        invoice.overdue""",
    Reaction.PAYMENT: """
        payment_intent.succeeded payment_intent.payment_failed payment_intent.requires_action
        payment_intent.canceled""",
    Reaction.REFUND: "refund.created refund.updated refund.failed charge.refunded",
    Reaction.DISPUTE: """
        charge.dispute.created charge.dispute.closed charge.dispute.funds_withdrawn
        charge.dispute.funds_reinstated""",
    Reaction.CUSTOMER: "customer.deleted",
    Reaction.ENTITLEMENTS: "entitlements.active_entitlement_summary.updated",
    Reaction.GRANT: "billing.credit_grant.created billing.credit_grant.updated",
    Reaction.ALERT: "billing.alert.triggered",
    Reaction.METER: "billing.meter.error_report_triggered billing.meter.no_meter_found",
}

TYPES: Final[Mapping[str, Reaction]] = MappingProxyType(
    {name: reaction for reaction, names in _BY_REACTION.items() for name in names.split()}
)
"""Every type we take, in the snapshot's spelling."""

THIN_ALONE: Final = frozenset(_BY_REACTION[Reaction.METER].split())
"""Types that come as thin events only: an endpoint for snapshots never gets them."""

_NAMELESS: Final = frozenset(
    {"invoice.upcoming", "entitlements.active_entitlement_summary.updated", "billing.alert.triggered"}
    | {"billing.meter.no_meter_found"}
)
"""Types whose object has no id: a preview, a summary, something that is not there."""

_EVENT_ID: Final = re.compile(r"evt_[A-Za-z0-9_]{1,200}")
_TYPE: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_TYPE_CHARS_MAX: Final = 120
_TEXT_CHARS_MAX: Final = 255
"""Longer than any id that Stripe documents."""

_SECONDS_MAX: Final = 10**11
_MS_PER_S: Final = 1000


class MalformedEvent(Exception):
    """JSON that is no event of Stripe's; the text says which part is not."""


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """One event: `dedupe_id` is the same for all that tell of the same, in whatever kind they come.

    `object_id` and `customer` are empty where the event does not name them: a thin one never names the customer.
    `created_ms` (Stripe's clock, whole seconds of a snapshot) orders nothing. `account` is empty for an event of the
    account itself, and names another one that is connected to it (https://docs.stripe.com/connect/webhooks).
    """

    event_id: str
    dedupe_id: str
    type: str
    object_id: str
    customer: str
    created_ms: int
    livemode: bool
    api_version: str
    thin: bool
    account: str = ""

    @property
    def reaction(self) -> Reaction | None:
        """What it makes us do; None where it is none of ours."""
        return TYPES.get(self.type)


def event_of(value: object) -> StripeEvent:
    """The event that a parsed JSON body says. Raises MalformedEvent."""
    if not isinstance(value, dict):
        raise MalformedEvent("it is no object")
    if value.get("object") == "event":
        return _snapshot(value)
    if value.get("object") == "v2.core.event":
        return _thin(value)
    raise MalformedEvent("`object` is neither event nor v2.core.event")


def _snapshot(value: Mapping[str, Any]) -> StripeEvent:
    """https://docs.stripe.com/api/events/object."""
    data = value.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    if not isinstance(subject, dict):
        raise MalformedEvent("`data.object` is no object")
    kind, event_id, created = _type(value), _event_id(value, "id"), value.get("created")
    if not isinstance(created, int) or isinstance(created, bool) or not 0 <= created < _SECONDS_MAX:
        raise MalformedEvent("`created` is no time in seconds")
    object_id = _text(subject, "id")
    customer = object_id if subject.get("object") == "customer" else _customer(subject)
    version = _text(value, "api_version")
    return _named(
        StripeEvent(
            event_id, event_id, kind, object_id, customer, created * _MS_PER_S, _livemode(value), version,
            thin=False, account=_text(value, "account"),
        )
    )  # fmt: skip


def _thin(value: Mapping[str, Any]) -> StripeEvent:
    """https://docs.stripe.com/api/v2/core/events/object. `snapshot_event` names its twin where there is one."""
    subject = value.get("related_object") or {}
    if not isinstance(subject, dict):
        raise MalformedEvent("`related_object` is no object")
    event_id = _event_id(value, "id")
    twin = event_id if value.get("snapshot_event") is None else _event_id(value, "snapshot_event")
    kind, object_id = _type(value).removeprefix("v1."), _text(subject, "id")
    customer = object_id if subject.get("type") == "customer" else ""
    return _named(
        StripeEvent(
            event_id, twin, kind, object_id, customer, _created_ms(value), _livemode(value), "",
            thin=True, account=_text(value, "context"),
        )
    )  # fmt: skip


def _named(event: StripeEvent) -> StripeEvent:
    """The event, which must name its object where it is one of ours and the object has a name."""
    if event.reaction is not None and not event.object_id and event.type not in _NAMELESS:
        raise MalformedEvent("the object has no `id`")
    return event


def _event_id(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not _EVENT_ID.fullmatch(found):
        raise MalformedEvent(f"`{name}` is no id of an event")
    return found


def _type(value: Mapping[str, Any]) -> str:
    found = value.get("type")
    if not isinstance(found, str) or len(found) > _TYPE_CHARS_MAX or not _TYPE.fullmatch(found):
        raise MalformedEvent("`type` is no type of an event")
    return found


def _livemode(value: Mapping[str, Any]) -> bool:
    found = value.get("livemode")
    if not isinstance(found, bool):
        raise MalformedEvent("`livemode` is neither true nor false")
    return found


def _created_ms(value: Mapping[str, Any]) -> int:
    found = value.get("created")
    try:
        at = datetime.fromisoformat(found if isinstance(found, str) else "")
        seconds = at.timestamp() if at.tzinfo is not None else -1
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise MalformedEvent("`created` is no time with its zone")
    return round(seconds * _MS_PER_S)


def _customer(subject: Mapping[str, Any]) -> str:
    """The customer an object names, by id or whole."""
    found = subject.get("customer")
    return _text(found, "id") if isinstance(found, dict) else _text(subject, "customer")


def _text(value: Mapping[str, Any], name: str) -> str:
    """A short text; empty where there is none."""
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _TEXT_CHARS_MAX:
        raise MalformedEvent(f"`{name}` is no short text")
    return found
