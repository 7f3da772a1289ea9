"""What a store wrote to its log, transaction by transaction: every state that its data has been in."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hiredis

Commands = list[list[bytes]]


def transactions(content: bytes) -> Iterator[Commands]:
    """The commands of a log in order, each group of them that took effect at once."""
    reader = hiredis.Reader()
    reader.feed(content)
    inside: Commands | None = None
    while (command := reader.gets()) is not False:
        name = command[0].upper()
        if name == b"MULTI":
            inside = []
        elif name == b"EXEC":
            yield inside or []
            inside = None
        elif inside is not None:
            inside.append(command)
        else:
            yield [command]


def states(folder: Path, key: str) -> Iterator[Counter[str]]:
    """The whole numbers in the hash `key` after each transaction that wrote to it, of a log never rewritten."""
    [log] = folder.glob("**/*.incr.aof")
    figures: Counter[str] = Counter()
    for commands in transactions(log.read_bytes()):
        own = [command for command in commands if len(command) > 1 and command[1] == key.encode()]
        for name, _, *words in own:
            texts = [word.decode() for word in words]
            if name.upper() == b"HSET":
                for field, value in zip(texts[::2], texts[1::2], strict=True):
                    if value.lstrip("-").isdigit():
                        figures[field] = int(value)
            elif name.upper() == b"HINCRBY":
                figures[texts[0]] += int(texts[1])
        if own:
            yield figures
