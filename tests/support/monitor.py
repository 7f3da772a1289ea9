"""What a server was really asked: MONITOR, read while a test drives it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final

_LINE: Final = re.compile(r'^\+\d+\.\d+ \[(?P<database>\d+) (?P<who>[^\]]+)\] (?P<words>".*")$')
_WORD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')

KEYLESS: Final = {"TIME"}

_LINE_MAX: Final = 1 << 20
"""A line holds a whole command: the text of a script is the longest."""


class Asked:
    """One command as the server saw it; `by_script` says that a script made it."""

    def __init__(self, line: str) -> None:
        match = _LINE.match(line)
        assert match is not None, f"not a line of MONITOR: {line!r}"
        self.by_script = match["who"] == "lua"
        self.words = _WORD.findall(match["words"])
        self.name = self.words[0].upper()


@asynccontextmanager
async def monitored(address: str | tuple[str, int]) -> AsyncIterator[list[str]]:
    """Every line that MONITOR shows while the block runs; complete once it has ended."""
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address, limit=_LINE_MAX)
    else:
        reader, writer = await asyncio.open_connection(*address, limit=_LINE_MAX)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    lines: list[str] = []
    task = asyncio.create_task(_read(reader, lines))
    try:
        yield lines
        writer.write(b"PING end-of-monitor\r\n")
        await task
    finally:
        task.cancel()
        writer.close()
        await asyncio.gather(task, writer.wait_closed(), return_exceptions=True)


async def _read(reader: asyncio.StreamReader, lines: list[str]) -> None:
    """Take lines until the one that closes the block."""
    while line := (await reader.readline()).decode().strip():
        if "end-of-monitor" in line:
            return
        if line.startswith("+"):
            lines.append(line)


def scripts(lines: Iterable[str]) -> Iterator[tuple[set[str], list[Asked]]]:
    """Each script call: the keys it declared, and the commands it made."""
    declared: set[str] = set()
    made: list[Asked] = []
    for asked in map(Asked, lines):
        if asked.by_script:
            made.append(asked)
        elif asked.name in {"EVAL", "EVALSHA"}:
            yield declared, made
            declared, made = set(asked.words[3 : 3 + int(asked.words[2])]), []
    yield declared, made


def keys_of(asked: Asked) -> list[str]:
    """The keys a command of a script names: of all commands used there, the first argument."""
    return [] if asked.name in KEYLESS else asked.words[1:2]
