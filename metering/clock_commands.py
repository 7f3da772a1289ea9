"""`metering clock`: the test clock of a data set. Imports wait until a command needs them."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from metering.console import beside_service, fail, say, say_json

if TYPE_CHECKING:
    from metering.clock_tasks import Reading

app = typer.Typer(help="The test clock: time that is moved by hand, never with a live key.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("show")
def clock_show(*, json: Json = False) -> None:
    """Show the data set's time and how far it is ahead of the machine's."""
    from metering.clock_tasks import read_clock
    from metering.store_access import AccessError

    try:
        _tell(asyncio.run(read_clock(beside_service())), json=json)
    except AccessError as error:
        fail(str(error), error.cure)


@app.command("advance")
def clock_advance(
    ahead: Annotated[str, typer.Argument(help="How much time passes: 90s, 30m, 12h, 31d.")], *, json: Json = False
) -> None:
    """Let time pass: everything that falls due on the way is done, by Stripe's sandbox and by the running service."""
    from metering.clock import MS_PER_S, SystemClock
    from metering.clock_tasks import advance
    from metering.moments import span_s
    from metering.store_access import AccessError

    try:
        ahead_ms = span_s(ahead) * MS_PER_S
    except ValueError as error:
        fail(f"{ahead} is no length of time: {error}", "Give one such as 31d.")
    try:
        _tell(asyncio.run(advance(beside_service(), SystemClock(), ahead_ms, _quiet if json else say)), json=json)
    except AccessError as error:
        fail(str(error), error.cure)


def _tell(reading: "Reading", *, json: bool) -> None:
    from metering.clock import MS_PER_S
    from metering.moments import rfc3339

    ahead_s = reading.offset_ms // MS_PER_S
    if json:
        say_json({"now": rfc3339(reading.now_ms), "ahead_s": ahead_s})
    else:
        say(f"{rfc3339(reading.now_ms)}, {ahead_s} s ahead of the machine's clock")


def _quiet(_: str) -> None:
    """For output that a program reads."""
