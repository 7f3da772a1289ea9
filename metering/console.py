"""How commands speak: what they found on stdout, an error and its cure on stderr. Imports wait as in `cli`."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from metering.settings import Settings, SettingsError
    from metering.store.gate import Check


def loaded(**options: object) -> "Settings":
    """The settings in force; ends the command with every fault if they cannot be used."""
    from metering.settings import Settings, SettingsError

    try:
        return Settings.load(options=options)
    except SettingsError as error:
        fail_settings(error)


def beside_service(**options: object) -> "Settings":
    """The settings in force for a command about a service that runs: with its sandbox Stripe, where it has one."""
    from metering.sandbox_place import beside_sandbox

    return beside_sandbox(loaded(**options))


def plain(record: Any) -> dict[str, object]:
    """A dataclass as JSON takes it."""
    from dataclasses import asdict

    return asdict(record)


def say(line: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def harmless(text: str) -> str:
    """Text that others sent in, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def tell(line: str) -> None:
    """`say` for a service, which goes on when nobody reads its words any more."""
    with suppress(OSError):
        say(line)


def say_json(value: object) -> None:
    """A value as JSON on stdout."""
    import json

    say(json.dumps(value, indent=2))


def say_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say_check(check: "Check") -> None:
    """A line of a check-up, with its cure where there is something to cure."""
    mark = "ok  " if check.ok else "FAIL" if check.fatal else "warn"
    say(f"{mark}  {check.name}: {check.found}")
    if not check.ok and check.cure:
        say(f"      {check.cure}")


def warn(reason: str, cure: str) -> None:
    """An error and its cure on stderr."""
    sys.stderr.write(f"error: {reason}\n" + (f"  {cure}\n" if cure else ""))


def fail(reason: str, cure: str) -> NoReturn:
    """An error and its cure, then the end."""
    warn(reason, cure)
    raise typer.Exit(1)


def fail_settings(error: "SettingsError") -> NoReturn:
    """Every fault of the settings, then the end."""
    for fault in error.faults:
        found = f" (found {fault.found!r})" if fault.found else ""
        place = f" in {fault.source}" if fault.source else ""
        warn(f"{fault.name}{place}: {fault.reason}{found}", fault.cure)
    raise typer.Exit(1)
