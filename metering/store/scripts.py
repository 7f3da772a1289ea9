"""The Lua scripts: loaded once, by name."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

NAMES: Final = ("track", "roll", "change_plan", "enqueue", "begin", "finish")

_SHEBANG: Final = "#!lua\n"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text as sent to the server, and the SHA-1 it is called by."""

    name: str
    text: str

    @property
    def sha(self) -> str:
        """What EVALSHA takes."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str, *, fake: bool = False) -> Script:
    """Read a script. `fake` drops the `#!lua` line, which fakeredis cannot read.

    The line itself matters on a real server: with it a script is refused as a whole under OOM, before its first write.
    """
    text = files("metering.store").joinpath("lua", f"{name}.lua").read_text("utf-8")
    if not text.startswith(_SHEBANG):
        raise ValueError(f"{name}.lua does not begin with #!lua")
    return Script(name, text.removeprefix(_SHEBANG) if fake else text)
