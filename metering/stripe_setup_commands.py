"""`metering stripe setup` and `metering stripe doctor`. Imports wait until a command needs them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metering.console import beside_service, fail, plain, say, say_check, say_json, say_table, warn

if TYPE_CHECKING:
    from metering.billing.setup import Done, SetupPlan
    from metering.settings import Settings
    from metering.stripe_setup import Setting

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option("--url", help="Where Stripe reaches this service: https://metering.example.com")
]


def setup(
    url: Url = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what goes wrong.")] = False,
    secrets_to: Annotated[
        Path | None, typer.Option("--secrets-to", help="Add webhook secrets to this file instead of printing them.")
    ] = None,
) -> None:
    """Make at Stripe what the catalogue needs: products, prices, meters, portal, webhooks. Safe to repeat."""
    from metering.store_access import AccessError

    try:
        asyncio.run(_setup(beside_service(), url, dry_run=dry_run, yes=yes, quiet=quiet, keep=_keeper(secrets_to)))
    except AccessError as error:
        fail(str(error), error.cure)


async def _setup(
    settings: "Settings", url: str | None, *, dry_run: bool, yes: bool, quiet: bool, keep: Callable[[list[str]], None]
) -> None:
    from metering.clock import SystemClock
    from metering.stripe_setup import planned, webhook_url

    async with planned(settings, SystemClock(), None if url is None else webhook_url(url)) as setting:
        if not quiet:
            _show(setting.plan, settings)
        for fault in setting.plan.faults:
            warn(f"{fault.name}: {fault.why}", fault.cure)
        if setting.plan.faults:
            raise typer.Exit(1)
        if dry_run or not setting.plan.changes:
            return
        if not yes:
            typer.confirm(
                f"Do these {len(setting.plan.changes)} things in {settings.stripe_mode().value} mode?", abort=True
            )
        await _carry_out(setting, keep, quiet=quiet)


def _show(plan: "SetupPlan", settings: "Settings") -> None:
    from metering.billing.setup import said

    say(f"Stripe: {settings.stripe_mode().value}" + (", MONEY MOVES" if settings.stripe_livemode() else ""))
    say_table(list(said(plan)))
    say(f"{len(plan.changes)} to do" if plan.changes else "nothing to do")


async def _carry_out(setting: "Setting", keep: Callable[[list[str]], None], *, quiet: bool) -> None:
    """Take the steps. Secrets are kept also where a later step fails: Stripe does not tell them again."""
    secrets: list[str] = []
    try:
        async for done in setting.carry_out():
            secrets += [done.secret] if done.secret else []
            if not quiet:
                say(_told(done))
    finally:
        keep(secrets)


def _keeper(path: Path | None) -> Callable[[list[str]], None]:
    """What becomes of secrets: shown, or added to a file that nobody else may read."""

    def show(secrets: list[str]) -> None:
        if secrets:
            say("Stripe tells these secrets this once. Put them into the service's settings, beside those it has:")
            say(f"STRIPE_WEBHOOK_SECRET={','.join(secrets)}")

    def add(secrets: list[str]) -> None:
        if path is not None:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
                file.writelines(f"{secret}\n" for secret in secrets)

    return show if path is None else add


def _told(done: "Done") -> str:
    verb = {"make": "made", "change": "changed"}[done.step.verb.value]
    return f"{verb}  {done.step.wanted.kind}  {done.step.wanted.name}  {done.id}"


def doctor(url: Url = None, *, json: Json = False) -> None:
    """Check Stripe: key, account, prices, meters, webhooks, clock; every line with its cure. Exit 1 on faults."""
    from metering.clock import SystemClock
    from metering.store_access import AccessError
    from metering.stripe_setup import examine_stripe, webhook_url

    try:
        address = None if url is None else webhook_url(url)
        checks = asyncio.run(examine_stripe(beside_service(), SystemClock(), address))
    except AccessError as error:
        fail(str(error), error.cure)
    if json:
        say_json({"checks": [plain(check) for check in checks]})
    else:
        for check in checks:
            say_check(check)
    if any(not check.ok and check.fatal for check in checks):
        raise typer.Exit(1)
