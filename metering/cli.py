"""The command line. Every error is one sentence and its cure; imports wait until a command needs them."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from metering.clock_commands import app as clock_app
from metering.console import (
    beside_service,
    fail,
    fail_settings,
    loaded,
    plain,
    say,
    say_check,
    say_json,
    say_table,
    tell,
)
from metering.encryption_commands import app as encryption_app
from metering.org_commands import app as org_app
from metering.plan_commands import app as plans_app
from metering.stripe_commands import app as stripe_app

app = typer.Typer(
    help="Usage metering and billing.", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)
config_app = typer.Typer(help="The settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(plans_app, name="plans")
app.add_typer(stripe_app, name="stripe")
app.add_typer(clock_app, name="clock")
app.add_typer(encryption_app, name="encryption")
app.add_typer(org_app, name="org")
events_app = typer.Typer(help="Raw events, and events that were given up.", no_args_is_help=True)
app.add_typer(events_app, name="events")

HEALTH_TIMEOUT_S: Final = 4.0
"""Below the 5 s that container runtimes give a health check."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one.  [PORT, 8005]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer.  [WORKERS, 1]")] = None,
    *,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="A store in memory: ALL DATA IS LOST ON EXIT.")
    ] = False,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Without a key for Stripe: a sandbox Stripe beside it, no money moves.")
    ] = False,
    show_token: Annotated[
        bool, typer.Option("--show-token", help="Print an admin token, off loopback and with REDIS_URL too.")
    ] = False,
) -> None:
    """Start the service, with a durable store of its own unless REDIS_URL names one."""
    from metering.clock import SystemClock
    from metering.serve import ServeError, Service
    from metering.serve_sandbox import SandboxError
    from metering.settings import SettingsError
    from metering.store.binaries import NoServerError
    from metering.store.embedded import StoreStartError
    from metering.store.folder import DataDirError

    expected = (ServeError, SandboxError, NoServerError, StoreStartError, DataDirError)
    settings = loaded(host=host, port=port, workers=workers)
    try:
        service = Service(settings, SystemClock(), tell, ephemeral=ephemeral, sandbox=sandbox, show_token=show_token)
        asyncio.run(service.run())
    except SettingsError as error:
        fail_settings(error)
    except (*expected, ExceptionGroup) as error:
        cause = _first(error)
        if not isinstance(cause, expected):
            raise
        fail(str(cause), cause.cure)


@app.command()
def demo(port: Annotated[int, typer.Option(help="Port.")] = 8005) -> None:
    """A service to look around in: organisations in every state, a month of history, a tour. Removed at the end."""
    from metering.clock import SystemClock
    from metering.demo import DemoError, run

    try:
        asyncio.run(run(port, SystemClock(), tell))
    except DemoError as error:
        fail(str(error), error.cure)


@app.command()
def token(
    org: Annotated[str, typer.Option(help="The organisation it is for.")],
    scope: Annotated[list[str], typer.Option(help="What it may do; repeat for several. `admin` holds all.")],
    ttl: Annotated[str, typer.Option(help="How long it holds: 90s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Print a token for the API, signed with JWT_SECRET or the secret kept in DATA_DIR."""
    from metering.clock import SystemClock
    from metering.settings import SettingsError
    from metering.tokens import TokenError, mint, seconds_of

    try:
        settings = loaded().with_secret_kept()
        say(mint(settings, SystemClock(), org=org, scopes=scope, ttl_s=seconds_of(ttl)))
    except SettingsError as error:
        fail_settings(error)
    except TokenError as error:
        fail(str(error), error.cure)


@config_app.command("check")
def config_check(*, json: Json = False) -> None:
    """Show every setting, its value (secrets masked) and its source; exit 1 with every fault if there are any."""
    from metering.settings import Settings, SettingsError

    try:
        rows = Settings.load().describe()
    except SettingsError as error:
        if json:
            say_json({"faults": [plain(fault) for fault in error.faults]})
            raise typer.Exit(1) from error
        fail_settings(error)
    if json:
        say_json({"settings": [plain(row) for row in rows]})
    else:
        say_table([(row.name, row.value, row.source, row.about) for row in rows])


@events_app.command("sink")
def events_sink(
    folder: Annotated[Path, typer.Option("--dir", help="Where the files go: events-YYYY-MM-DD.jsonl.")],
    group: Annotated[str, typer.Option(help="Consumer group: each gets every event.")] = "sink",
    name: Annotated[str, typer.Option(help="Name in the group; what it left unfinished it takes up again.")] = "sink",
    *,
    once: Annotated[bool, typer.Option("--once", help="End when there is nothing left to copy.")] = False,
) -> None:
    """Copy raw events into files of JSON lines as they are counted, each at least once."""
    from metering import log
    from metering.clock import SystemClock
    from metering.event_commands import copy_events
    from metering.sink import SinkError

    settings = loaded()
    log.configure(settings.log_level.value, clock=SystemClock())
    try:
        written = asyncio.run(copy_events(settings, SystemClock(), folder, group=group, name=name, once=once))
    except SinkError as error:
        fail(str(error), error.cure)
    say(f"{written} events written to {folder}")


@events_app.command("retry")
def events_retry() -> None:
    """Put events that were given up (metering_queue_dead) back into their queues, once the cause is repaired."""
    from metering.event_commands import retry_events
    from metering.sink import SinkError

    try:
        put = asyncio.run(retry_events(loaded()))
    except SinkError as error:
        fail(str(error), error.cure)
    say(f"{put} events wait to be counted again")


@app.command()
def tail(
    org: Annotated[str | None, typer.Option(help="Only of this organisation.")] = None,
    feature: Annotated[str | None, typer.Option(help="Only of this feature.")] = None,
    since: Annotated[str, typer.Option(help="Begin so long ago: 30s, 10m, 1h.")] = "0",
    *,
    once: Annotated[bool, typer.Option("--once", help="End with what is there.")] = False,
    json: Json = False,
) -> None:
    """Show raw events as they are counted, until Ctrl-C; needs EVENT_RETENTION."""
    from metering.clock import MS_PER_S, SystemClock
    from metering.event_commands import follow_events
    from metering.moments import span_s
    from metering.sink import SinkError
    from metering.tail_lines import line_of

    try:
        back_ms = span_s(since) * MS_PER_S
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    for_s = 0 if once else float("inf")
    told = partial(line_of, json=json)
    work = follow_events(
        loaded(), SystemClock(), lambda seen: say(told(seen)), org_id=org, feature=feature, back_ms=back_ms, for_s=for_s
    )
    try:
        asyncio.run(work)
    except SinkError as error:
        fail(str(error), error.cure)
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(0) from None


@app.command()
def doctor(*, json: Json = False) -> None:
    """Check this installation and its store; every line with its cure. Exit 1 if the service would not start."""
    from metering.clock import SystemClock
    from metering.doctor import examine
    from metering.settings import SettingsError

    try:
        checks = asyncio.run(examine(beside_service(), SystemClock()))
    except SettingsError as error:
        fail_settings(error)
    if json:
        say_json({"checks": [plain(check) for check in checks]})
    else:
        for check in checks:
            say_check(check)
    if any(not check.ok and check.fatal for check in checks):
        raise typer.Exit(1)


@app.command()
def health(
    url: Annotated[str, typer.Option(help="The service.  [at HOST and PORT, as set here]")] = "",
) -> None:
    """Ask a running service for its health; exit 0 when it is healthy, 1 when not. For container health checks."""
    from http.client import HTTPException
    from urllib.request import urlopen

    base = url or loaded().service_url()
    try:
        with urlopen(f"{base.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310 - the operator's URL
            say(answer.read().decode(errors="replace"))
    except (OSError, ValueError, HTTPException) as error:
        fail(
            f"{base} is not healthy ({error})",
            "Is the service running? Its log says more. It is at another address? Name it: --url.",
        )


@app.command("version")
def show_version() -> None:
    """Print the version."""
    from importlib.metadata import version

    say(version("usage-metering"))


def _first(error: BaseException) -> BaseException:
    """The first real error in a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    app()
