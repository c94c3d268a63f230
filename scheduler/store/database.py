"""The database: SQLite, write-ahead log, every commit on disk before it is answered."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ..clock import now

P = ParamSpec("P")
T = TypeVar("T")
Row = sqlite3.Row
Value = str | int | float | None

_HERE = Path(__file__).parent


def statements(text: str) -> dict[str, str]:
    """The named statements of a file of `-- name: x` blocks."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (body.strip() for body in parts[1::2]), strict=True))


_STATEMENTS = statements((_HERE / "queries.sql").read_text())


class Transaction:
    """One open transaction: named statements, and the events that tell of its changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.now = now()
        self.events = 0

    def all(self, statement: str, **values: Value) -> list[Row]:
        return self._connection.execute(_STATEMENTS[statement], values).fetchall()

    def one(self, statement: str, **values: Value) -> Row | None:
        rows = self.all(statement, **values)
        return rows[0] if rows else None

    def change(self, statement: str, **values: Value) -> int:
        """How many rows were changed."""
        return self._connection.execute(_STATEMENTS[statement], values).rowcount

    def advance(self, counter: str) -> int:
        row = self.one("advance_counter", name=counter)
        assert row is not None, counter
        return int(row["value"])

    def event(self, kind: str, subject: str, **data: object) -> None:
        """Told in the same commit as the change itself, or not at all."""
        self.events += 1
        known = {key: value for key, value in data.items() if value is not None}
        self.change(
            "add_event",
            sequence=self.advance("event"),
            time=self.now,
            type=kind,
            subject=subject,
            data=json.dumps(known),
        )


class Store:
    """One connection and one thread: SQLite has one writer, and the event loop never waits for a disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=5, cached_statements=256
        )
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        migrate(self._connection)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, on the event loop, after each commit that told an event."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    async def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a transaction and commit it. What it raises undoes all of it."""

        def run() -> tuple[T, int]:
            with self._transaction("IMMEDIATE") as transaction:
                return work(transaction, *args, **kwargs), transaction.events

        result, events = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        if events:
            for listener in tuple(self._listeners):
                listener()
        return result

    async def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, on one consistent state."""

        def run() -> T:
            with self._transaction("DEFERRED") as transaction:
                return work(transaction, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def check(self) -> None:
        """Raises sqlite3.Error when nothing can be written."""
        await self.write(lambda tx: tx.change("put_setting", name="checked_at", value=str(tx.now)))

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._connection.close()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[Transaction]:
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield Transaction(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def migrate(connection: sqlite3.Connection, folder: Path = _HERE / "migrations") -> None:
    """Bring the schema up to date. Each migration and its number are committed together."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
    current = connection.execute("SELECT max(version) FROM schema_version").fetchone()[0] or 0
    for version, text in migrations(folder).items():
        if version <= current:
            continue
        connection.executescript(f"BEGIN IMMEDIATE;\n{text}\nINSERT INTO schema_version VALUES ({version:d});\nCOMMIT;")


def migrations(folder: Path) -> Mapping[int, str]:
    return {int(path.name[:4]): path.read_text() for path in sorted(folder.glob("[0-9]*.sql"))}
