"""`metering stripe setup` and `metering stripe doctor`. Imports wait until a command needs them."""

import asyncio
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what goes wrong; print no secret.")] = False,
) -> None:
    """Make at Stripe what the catalogue needs: products, prices, meters, portal, webhooks. Safe to repeat."""
    from metering.store_access import AccessError

    try:
        asyncio.run(_setup(beside_service(), url, dry_run=dry_run, yes=yes, quiet=quiet))
    except AccessError as error:
        fail(str(error), error.cure)


async def _setup(settings: "Settings", url: str | None, *, dry_run: bool, yes: bool, quiet: bool) -> None:
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
        await _carry_out(setting, quiet=quiet)


def _show(plan: "SetupPlan", settings: "Settings") -> None:
    from metering.billing.setup import said

    say(f"Stripe: {settings.stripe_mode().value}" + (", MONEY MOVES" if settings.stripe_livemode() else ""))
    say_table(list(said(plan)))
    say(f"{len(plan.changes)} to do" if plan.changes else "nothing to do")


async def _carry_out(setting: "Setting", *, quiet: bool) -> None:
    secrets = []
    async for done in setting.carry_out():
        if done.secret:
            secrets.append(done.secret)
        if not quiet:
            say(_told(done))
    if secrets and not quiet:
        say("Stripe tells these secrets this once. Put them into the service's settings, beside those that are there:")
        say(f"STRIPE_WEBHOOK_SECRET={','.join(secrets)}")


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
