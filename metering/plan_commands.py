"""`metering plans`: the catalogue, and what a newer one changes. Imports wait until a command needs them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from metering.console import fail, loaded, plain, say, say_json, say_table, warn

if TYPE_CHECKING:
    from metering.plan_tasks import Effect
    from plans.catalogue import Catalogue

app = typer.Typer(help="The catalogue of plans.", no_args_is_help=True)

SHOWN: Final = 3
"""Names of organisations in a line; JSON has all."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="A catalogue in TOML, or the name of a shipped one.")]) -> None:
    """Read a catalogue and say what is wrong with it, everything at once; exit 1 if anything is."""
    from metering.catalogues import text_of
    from plans.catalogue import CatalogueError, parse

    try:
        text, _ = text_of(file)
        catalogue = parse(text, str(file))
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read ({error})", "Name a readable TOML file in UTF-8.")
    except CatalogueError as error:
        for fault in error.faults:
            warn(f"{fault.file}: {fault.key}: {fault.reason}", fault.cure)
        raise typer.Exit(1) from error
    plans, features = ", ".join(catalogue.plans), ", ".join(catalogue.features)
    say(f"{file} is good: version {catalogue.version}; plans {plans}; features {features}")
    if catalogue.packages:
        say_table([("CREDITS", "PRICE", "PER CREDIT", "DISCOUNT"), *_offers(catalogue)])


def _offers(catalogue: "Catalogue") -> Iterator[tuple[str, str, str, str]]:
    """The packages of credits as a price list."""
    from plans.money import shown, unit_price

    for one in catalogue.packages.values():
        price = shown(one.price_minor, catalogue.currency)
        each = unit_price(one.price_minor, one.credits, catalogue.currency)
        yield str(one.credits), price, each, f"{one.discount_percent} %"


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A shipped catalogue; without it they are listed.")] = "") -> None:
    """Print a shipped catalogue, to be copied and changed; without a name, which ones there are."""
    from metering.catalogues import NUMBERED, SHIPPED, text_of

    if not name:
        say_table([(number, one, SHIPPED[one]) for number, one in NUMBERED.items()])
    elif name in SHIPPED or name in NUMBERED:
        say(text_of(Path(name))[0].rstrip())
    else:
        fail(f"no shipped catalogue is called {name}", f"Name one of {', '.join(SHIPPED)}.")


@app.command("diff")
def diff(*, json: Json = False) -> None:
    """Show what the catalogue in force changes of the organisations there are. Changes nothing."""
    effect = _effect()
    if json:
        say_json(_as_json(effect))
    else:
        _say_effect(effect)


@app.command("apply")
def apply(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Bring every organisation to the limits of the catalogue in force, after showing whom it changes."""
    from metering.plan_tasks import apply as bring
    from metering.store_access import AccessError

    _say_effect(_effect())
    if not yes:
        typer.confirm("Apply it?", abort=True)
    try:
        say(f"{asyncio.run(bring(loaded()))} organisations changed")
    except AccessError as error:
        fail(str(error), error.cure)


def _effect() -> "Effect":
    from metering.plan_tasks import effect_of
    from metering.store_access import AccessError

    try:
        return asyncio.run(effect_of(loaded()))
    except AccessError as error:
        fail(str(error), error.cure)


def _say_effect(effect: "Effect") -> None:
    say(f"version {effect.before} -> {effect.after}")
    for one in effect.terms:
        say(f"  {one.term}: {one.before or 'none'} -> {one.after or 'none'}")
    rows = [(*kind, str(len(names)), _few(names)) for kind, names in sorted(effect.changes.items())]
    if rows:
        say_table([("PLAN", "FEATURE", "NOW", "THEN", "COUNT", "ORGANISATIONS"), *rows])
    else:
        say("no organisation changes")
    if effect.owing:
        say(f"with overage in the running period, which stays: {_few(effect.owing)}")
    if effect.without:
        say(f"on a plan that is gone, with the limits they have: {_few(effect.without)}")


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _as_json(effect: "Effect") -> dict[str, object]:
    heads = ("plan", "feature", "before", "after")
    changes = [dict(zip(heads, kind, strict=True)) | {"organisations": names} for kind, names in effect.changes.items()]
    return {
        "before": effect.before,
        "after": effect.after,
        "terms": [plain(one) for one in effect.terms],
        "changes": changes,
        "owing": effect.owing,
        "without_plan": effect.without,
    }
