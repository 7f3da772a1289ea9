"""The state of the sandbox: Stripe's objects as JSON rows of one SQLite file, or of memory."""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import ascii_letters, digits
from threading import RLock
from typing import Any, Final

Obj = dict[str, Any]

_ID_CHARS: Final = ascii_letters + digits
_ID_LENGTH: Final = 24

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL,
    parent TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (kind, id)
);
CREATE INDEX IF NOT EXISTS by_id ON objects (id);
CREATE INDEX IF NOT EXISTS by_parent ON objects (kind, parent, at);
"""

_UPSERT: Final = """
INSERT INTO objects (kind, id, parent, at, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent, at = excluded.at, body = excluded.body
"""


class Db:
    """Objects by kind and id, in the order in which they were first put.

    A change outside of `transaction()` is a transaction of its own. Any thread may call; one at a time is served.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._lock = RLock()
        self._depth = 0
        self._connection = sqlite3.connect(file or ":memory:", check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # survives the end of the process, which is enough
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is changed inside, or nothing where an exception leaves it. One inside another joins it."""
        with self._lock:
            self._depth += 1
            try:
                if self._depth > 1:
                    yield
                    return
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            finally:
                self._depth -= 1

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Nothing of what is changed inside stays."""
        with self.transaction():
            self._connection.execute("SAVEPOINT undone")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK TO undone")
                self._connection.execute("RELEASE undone")

    def get(self, kind: str, object_id: str) -> Obj | None:
        """One object; None where there is none."""
        rows = self._rows("SELECT body FROM objects WHERE kind = ? AND id = ?", kind, object_id)
        return rows[0] if rows else None

    def named(self, object_id: str) -> Obj | None:
        """The object with this id, whatever its kind."""
        rows = self._rows("SELECT body FROM objects WHERE id = ? AND kind NOT LIKE 'sandbox.%'", object_id)
        return rows[0] if rows else None

    def all(self, kind: str, *, newest_first: bool = False) -> list[Obj]:
        """Every object of a kind, by creation."""
        order = "DESC" if newest_first else "ASC"
        return self._rows(f"SELECT body FROM objects WHERE kind = ? ORDER BY seq {order}", kind)  # noqa: S608

    def of(self, kind: str, parent: str, *, start: int = 0, end: int = 2**62) -> list[Obj]:
        """Those that were put with this `parent` and an `at` in [start, end), by creation."""
        where = "kind = ? AND parent = ? AND at >= ? AND at < ?"
        return self._rows(f"SELECT body FROM objects WHERE {where} ORDER BY seq", kind, parent, start, end)  # noqa: S608

    def put(self, kind: str, obj: Obj, *, parent: str = "", at: int = 0) -> None:
        """Keep `obj` under its `id`, in place of what was there. `parent` and `at` are for `of`."""
        with self._lock:
            self._connection.execute(_UPSERT, (kind, obj["id"], parent, at, json.dumps(obj)))

    def delete(self, kind: str, object_id: str) -> None:
        """Forget one; one that is not there is no error."""
        with self._lock:
            self._connection.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, object_id))

    def forget(self, kind: str, *, before: int) -> None:
        """Forget all of a kind that were put without a parent and with an `at` below `before`."""
        with self._lock:
            self._connection.execute("DELETE FROM objects WHERE kind = ? AND parent = '' AND at < ?", (kind, before))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    @staticmethod
    def new_id(prefix: str) -> str:
        """An id as Stripe's: `cus_` and 24 letters and digits."""
        return f"{prefix}_" + "".join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH))

    def _rows(self, query: str, *values: object) -> list[Obj]:
        with self._lock:
            return [json.loads(body) for (body,) in self._connection.execute(query, values)]
