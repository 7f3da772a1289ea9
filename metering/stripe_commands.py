"""`metering stripe`: what operators do about Stripe. Imports wait until a command needs them."""

import asyncio
from typing import Annotated, Final

import typer

from metering.console import beside_service, fail, say, say_json, say_table
from metering.stripe_setup_commands import doctor, setup

app = typer.Typer(help="Stripe: what it needs, how it does, missed events, overage on its way.", no_args_is_help=True)
dead_app = typer.Typer(help="Events of Stripe that could not take effect.", no_args_is_help=True)
app.add_typer(dead_app, name="dead-events")
app.command("setup")(setup)
app.command("doctor")(doctor)
outbox_app = typer.Typer(help="Overage that Stripe does not have.", no_args_is_help=True)
app.add_typer(outbox_app, name="outbox")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_SHOWN: Final = (
    "org_id", "feature", "period_start", "overage", "delivered", "journal", "stripe", "drift", "verdict",
)  # fmt: skip
"""Columns of a reconciliation that fit on a screen."""


@app.command("catch-up")
def catch_up(*, json: Json = False) -> None:
    """Read from Stripe the events that no webhook brought, of the last 30 days at most. Safe to repeat."""
    from metering.clock import SystemClock
    from metering.store_access import AccessError
    from metering.stripe_tasks import catch_up as read

    try:
        caught = asyncio.run(read(beside_service(), SystemClock()))
    except AccessError as error:
        fail(str(error), error.cure)
    if json:
        say_json({"kept": caught.kept, "known": caught.known, "ignored": caught.ignored})
    else:
        say(f"{caught.events} events read: {caught.kept} new, {caught.known} known, {caught.ignored} not for us")


@dead_app.command("list")
def dead_events_list(*, json: Json = False) -> None:
    """Show the events that could not take effect, the oldest first, and why."""
    from metering.moments import rfc3339
    from metering.store_access import AccessError
    from metering.stripe_tasks import dead_events

    try:
        letters = asyncio.run(dead_events(beside_service()))
    except AccessError as error:
        fail(str(error), error.cure)
    rows = [(letter.event_id, letter.type, rfc3339(letter.received_ms), letter.why) for letter in letters]
    if json:
        say_json({"events": [dict(zip(("id", "type", "since", "why"), row, strict=True)) for row in rows]})
    elif rows:
        say_table([("EVENT", "TYPE", "SINCE", "WHY"), *rows])
    else:
        say("none")


@dead_app.command("replay")
def dead_events_replay(
    events: Annotated[list[str] | None, typer.Argument(help="Ids of the events; none: all of them.")] = None,
) -> None:
    """Try events again that could not take effect, once the cause is repaired."""
    from metering.store_access import AccessError
    from metering.stripe_tasks import replay

    try:
        put = asyncio.run(replay(beside_service(), set(events or ())))
    except AccessError as error:
        fail(str(error), error.cure)
    say(f"{put} events wait to take effect")


@outbox_app.command("list")
def outbox_list(
    org_id: Annotated[str | None, typer.Option("--org", help="Of this organisation alone.")] = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Dead windows alone.")] = False,
    json: Json = False,
) -> None:
    """Show the windows of overage that Stripe does not have, and why."""
    from metering.moments import rfc3339
    from metering.outbox_tasks import shown
    from metering.store_access import AccessError

    try:
        windows = asyncio.run(shown(beside_service(), org_id, dead=dead))
    except AccessError as error:
        fail(str(error), error.cure)
    head = ("window", "org", "feature", "units", "state", "since", "why")
    rows = [
        (one.id, one.cut.org_id, one.cut.feature, str(one.units), one.state.value, rfc3339(one.at_ms), one.error)
        for one in windows
    ]
    if json:
        say_json({"windows": [dict(zip(head, row, strict=True)) for row in rows]})
    elif rows:
        say_table([tuple(word.upper() for word in head), *rows])
    else:
        say("none")


@outbox_app.command("replay")
def outbox_replay(windows: Annotated[list[str], typer.Argument(help="Ids of dead windows.")]) -> None:
    """Send dead windows again, once the cause is repaired."""
    from metering.outbox_tasks import replay
    from metering.store_access import AccessError

    try:
        asyncio.run(replay(beside_service(), windows))
    except AccessError as error:
        fail(str(error), error.cure)
    say(f"{len(windows)} windows wait to be sent")


@outbox_app.command("discard")
def outbox_discard(
    windows: Annotated[list[str], typer.Argument(help="Ids of dead windows.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why. It stands in the audit trail.")],
) -> None:
    """Let dead windows go: their units are written off."""
    from pydantic import ValidationError

    from metering.api.models.stripe import DiscardRequest
    from metering.outbox_tasks import discard
    from metering.store_access import AccessError

    try:
        asyncio.run(discard(beside_service(), windows, DiscardRequest(reason=reason).reason))
    except ValidationError as error:
        raise typer.BadParameter("some words in one line", param_hint="--reason") from error
    except AccessError as error:
        fail(str(error), error.cure)
    say(f"{len(windows)} windows written off")


@app.command("reconcile")
def reconcile(
    org_id: Annotated[str | None, typer.Option("--org", help="Of this organisation alone.")] = None,
    *,
    shadow: Annotated[bool, typer.Option("--shadow", help="Against the second account.")] = False,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Hold our books against Stripe's, of the running periods and those before; exit status 3 where they differ."""
    from metering.api.reconciliation import HEAD, cells_of, csv_of, line_view
    from metering.outbox_tasks import reconciled, shadowed
    from metering.store_access import AccessError

    try:
        lines = asyncio.run(reconciled(beside_service(), org_id, shadow=shadow))
        counts = asyncio.run(shadowed(beside_service())) if shadow else {}
    except AccessError as error:
        fail(str(error), error.cure)
    rows = [dict(zip(HEAD, cells_of(line), strict=True)) for line in lines]
    if json:
        say_json({"lines": [line_view(line) for line in lines]} | ({"shadow": counts} if shadow else {}))
    elif csv:
        say(csv_of(lines).decode().rstrip("\r\n"))
    elif rows:
        say_table(
            [tuple(name.upper() for name in _SHOWN), *(tuple(_cell(row[name]) for name in _SHOWN) for row in rows)]
        )
    else:
        say("none")
    if counts and not (json or csv):
        say("windows: " + ", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    if any(row["verdict"] == "drift" for row in rows):
        raise typer.Exit(3)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


@app.command("repair")
def repair(
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Do it.")] = False,
    json: Json = False,
) -> None:
    """Let dead windows go again of which Stripe's sum proves that it has all of them, or none. Shown first."""
    from metering.api.reconciliation import step_view
    from metering.billing.repair import Proof
    from metering.outbox_tasks import repaired
    from metering.store_access import AccessError

    try:
        steps = asyncio.run(repaired(beside_service(), apply=apply))
    except AccessError as error:
        fail(str(error), error.cure)
    views = [step_view(step) for step in steps]
    if json:
        say_json({"applied": apply, "steps": views})
    elif views:
        head = ("window", "org_id", "feature", "units", "proof")
        say_table([tuple(name.upper() for name in head), *(tuple(str(view[name]) for name in head) for view in views)])
        proved = sum(step.proof is not Proof.NEITHER for step in steps)
        say(f"{proved} repaired" if apply else f"{proved} to repair: nothing was done; --apply does it")
    else:
        say("none")
