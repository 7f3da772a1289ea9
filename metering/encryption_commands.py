"""`metering encryption`: the keys of sensitive values in the store. Imports wait until a command needs them."""

import asyncio
import base64
import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from metering.console import beside_service, fail, plain, say, say_json, say_table

if TYPE_CHECKING:
    from metering.encryption_tasks import Left

app = typer.Typer(help="The keys of sensitive values in the store.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("new-key")
def new_key(key_id: Annotated[str, typer.Argument(help="Its id: letters, digits, - and _; say, the month.")]) -> None:
    """Print a new key as ENCRYPTION_KEYS takes it. It is kept nowhere."""
    from metering.setting_kinds import ring_of

    text = f"{key_id}:{base64.b64encode(secrets.token_bytes(32)).decode()}"
    try:
        ring_of(text)
    except ValueError:
        fail(f"{key_id} is no id of a key", "Take 1 to 32 letters, digits, - and _.")
    say(text)


@app.command("status")
def encryption_status(*, json: Json = False) -> None:
    """Show how many values rest under each key. A key with none may be taken out of ENCRYPTION_KEYS."""
    from metering.encryption_tasks import status
    from metering.store_access import AccessError

    try:
        _tell(asyncio.run(status(beside_service())), json=json)
    except AccessError as error:
        fail(str(error), error.cure)


@app.command("rotate")
def encryption_rotate(*, json: Json = False) -> None:
    """Encrypt every value under the first key of ENCRYPTION_KEYS, beside the running service; exit 1 if any is left."""
    from metering.encryption_tasks import PRESENT, rotate
    from metering.store_access import AccessError

    try:
        replaced, left = asyncio.run(rotate(beside_service()))
    except AccessError as error:
        fail(str(error), error.cure)
    if not json:
        say(f"{replaced} values encrypted under the present key")
    _tell(left, json=json)
    if any(one.values for one in left if one.standing != PRESENT):
        raise typer.Exit(1)


def _tell(left: "list[Left]", *, json: bool) -> None:
    if json:
        say_json({"keys": [plain(one) for one in left]})
    else:
        rows = [(one.key_id or "(not encrypted)", str(one.values), one.standing) for one in left]
        say_table([("KEY", "VALUES", "IN ENCRYPTION_KEYS"), *rows])
