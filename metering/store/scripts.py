"""The Lua scripts: loaded once, by name."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

NAMES: Final = (
    "track", "admit", "roll", "change_plan", "adjust", "release", "expire", "enqueue", "begin", "finish",
    "create_key", "delete_key", "touch_keys", "deny", "apply_event", "ticket", "freeze", "erase",
    "receive", "dismiss", "set_aside",
    "seal", "park", "link", "attempt", "defer", "settle", "replay", "discard", "finalize", "prune",
    "pass_lane", "journal", "pace", "reseal",
    "grant", "take_back", "freeze_grant", "mark_low", "lapse", "read_credits",
    "set_topup", "begin_topup", "end_topup", "read_shared",
)  # fmt: skip

_SHEBANG: Final = re.compile(r"#!lua( flags=no-writes)?\n")

_SHARED: Final = re.compile(r"^--@ (\w+)\n", re.MULTILINE)
"""A line of a script in whose place a part stands that several share: lua/shared/<name>.lua."""


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
    text = _SHARED.sub(lambda line: _read("shared", f"{line[1]}.lua"), _read(f"{name}.lua"))
    if not _SHEBANG.match(text):
        raise ValueError(f"{name}.lua does not begin with #!lua")
    return Script(name, _SHEBANG.sub("", text, count=1) if fake else text)


def _read(*place: str) -> str:
    return files("metering.store").joinpath("lua", *place).read_text("utf-8")
