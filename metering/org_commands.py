"""`metering org`: one organisation on one screen. Imports wait until a command needs them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metering.console import beside_service, fail, harmless, say, say_json, say_table

if TYPE_CHECKING:
    from metering.org_tasks import Dossier

app = typer.Typer(help="One organisation.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _group() -> None:
    """One organisation."""


@app.command("show")
def show(
    org: Annotated[str, typer.Argument(help="Its id, or its mark in the log.")],
    *,
    json: Json = False,
) -> None:
    """What answers a support call: plan, limits, usage, overage, credits, last events, what is on its way."""
    from metering.org_tasks import dossier_of
    from metering.store_access import AccessError

    try:
        view = view_of(asyncio.run(dossier_of(beside_service(), org)))
    except AccessError as error:
        fail(str(error), error.cure)
    if json:
        say_json(view)
        return
    for label, text in _head(view):
        say(f"{label:<13} {text}")
    say("")
    say_table([_FEATURE_HEAD, *map(_feature_row, view["features"].items())])
    _say_list("Last events", view["last_events"], _event_row)
    _say_list("Last billing events", view["last_billing_events"], _entry_row)


@app.command("erase")
def erase(
    org: Annotated[str, typer.Argument(help="Its id.")],
    *,
    reason: Annotated[str, typer.Option(help="Why. It stands in the receipt for good: name no person in it.")],
    write_off: Annotated[bool, typer.Option("--write-off", help="Give up overage that Stripe does not have.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the service to take away what is left.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase an organisation for good, and print the receipt. Its id is never used again."""
    from metering.api.erasure import erasure_view
    from metering.org_tasks import erase as erase_org
    from metering.store_access import AccessError

    if not yes:
        typer.confirm(f"Erase {org} for good? Nothing brings it back", abort=True)
    asked = erase_org(beside_service(), org, reason, write_off=write_off, wait_s=wait)
    try:
        say_json(erasure_view(asyncio.run(asked)))
    except AccessError as error:
        fail(str(error), error.cure)


def view_of(dossier: "Dossier") -> dict[str, Any]:
    """A dossier as JSON: the organisation as GET /v1/orgs shows it, and the rest beside it."""
    from metering.api.audit import entry_view
    from metering.api.usage import org_view
    from metering.auth import ADMIN, Caller
    from metering.moments import rfc3339
    from metering.store.raw_log import shown

    org = dossier.org
    told = dossier.org.profile.subscription
    events = dossier.events
    return org_view(org, Caller("cli", None, frozenset({ADMIN})), dossier.credits) | {
        "log_mark": dossier.mark,
        "grace_ends_at": None if org.profile.grace_end_ms is None else rfc3339(org.profile.grace_end_ms),
        "subscription": None
        if told is None
        else {"id": told.id, "status": told.status, "cancel_at_period_end": told.cancel_at_period_end},
        "sums_broken_since": None if dossier.frozen_ms is None else rfc3339(dossier.frozen_ms),
        "outbox": {
            state.value: {"windows": count.windows, "units": count.units} for state, count in dossier.waiting.items()
        },
        "last_events": None if events is None else [shown(entry, org.org_id) for entry in events],
        "last_billing_events": [entry_view(entry) for entry in dossier.trail],
    }


def _head(view: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines above the table."""
    yield "organisation", f"{view['org_id']}  (in the log: {view['log_mark']})"
    yield "since", f"{view['created_at']}, last change {view['updated_at']}"
    yield "plan", f"{view['plan']}{' with limits or a price of its own' if _has_own(view) else ''}"
    yield "period", f"{view['period']['start']} to {view['period']['end']}  ({view['reset']}, {view['timezone']})"
    yield "Stripe", _stripe(view)
    yield "payment", _payment(view)
    yield "credits", _credits(view["credits"])
    waiting = {state: count for state, count in view["outbox"].items() if count["windows"]}
    told = ", ".join(f"{one['windows']} {state} ({one['units']} units)" for state, one in waiting.items())
    yield "outbox", told or "nothing that Stripe does not have"
    broken = view["sums_broken_since"]
    yield "sums", "hold" if broken is None else f"DO NOT HOLD since {broken}: counted on, not billed"


def _has_own(view: Mapping[str, Any]) -> bool:
    agreed = view["agreed"] or {}
    return any(agreed.values())


def _stripe(view: Mapping[str, Any]) -> str:
    customer, told = view["stripe_customer_id"], view["subscription"]
    if customer is None:
        return "no customer"
    if told is None:
        return f"{customer}, no subscription"
    ends = ", ends with its period" if told["cancel_at_period_end"] else ""
    return f"{customer}, {told['id']} {told['status']}{ends}"


def _payment(view: Mapping[str, Any]) -> str:
    if view["payment_overdue"]:
        return "OVERDUE"
    return f"failed, patience until {view['grace_ends_at']}" if view["grace_ends_at"] else "in order"


def _credits(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "never had any"
    low = f", low below {told['low_mark']}" if told["low_mark"] is not None else ""
    return f"{told['balance']} ({told['reserved']} reserved, {told['owed']} owed{low}){' LOW' if told['low'] else ''}"


_FEATURE_HEAD = ("FEATURE", "USED", "RESERVED", "LIMIT", "LEFT", "OVERAGE", "ABOVE THE LIMIT", "LAST EVENT")


def _feature_row(item: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, one = item
    overage = f"{one['overage']}{' billed' if one['overage_billed'] else ''}"
    limit, left = ("unlimited", "-") if one["unlimited"] else (str(one["limit"]), str(one["remaining"]))
    mode = one["on_limit"] if one["enabled"] else "off"
    return (name, str(one["current"]), str(one["reserved"]), limit, left, overage, mode, one["last_updated"] or "-")


def _say_list(title: str, rows: list[Any] | None, row: Callable[[Mapping[str, Any]], tuple[str, ...]]) -> None:
    say("")
    if not rows:
        say(f"{title}: {'none' if rows is not None else 'none are kept: EVENT_RETENTION is 0'}")
        return
    say(f"{title}:")
    say_table([tuple(map(harmless, row(one))) for one in rows])


def _event_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    asked = f"{one['recorded']} of {one['quantity']}"
    return (f"  {one['at']}", one["feature"], asked, f"overage {one['overage']}", one["event_id"] or "-")


def _entry_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    details = " ".join(f"{name}={value}" for name, value in one["details"].items())
    return (f"  {one['at']}", one["type"], one["actor"] or "-", details)
