"""`metering stripe`: what operators do about Stripe. Imports wait until a command needs them."""

import asyncio
from typing import Annotated

import typer

from metering.console import beside_service, fail, say, say_json, say_table
from metering.stripe_setup_commands import doctor, setup

app = typer.Typer(help="Stripe: what it needs, how it does, events that were missed or given up.", no_args_is_help=True)
dead_app = typer.Typer(help="Events of Stripe that could not take effect.", no_args_is_help=True)
app.add_typer(dead_app, name="dead-events")
app.command("setup")(setup)
app.command("doctor")(doctor)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
