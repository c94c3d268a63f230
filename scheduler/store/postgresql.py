"""PostgreSQL, by URL. The only importer of psycopg."""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence

import psycopg
from psycopg.rows import DictRow, dict_row

from .connection import STATEMENTS, Access, Row, TakenError, UnavailableError, Values

#: The advisory lock of the one scheduler that works on a database.
LOCK = 0x57E7_405
CONNECT_SECONDS = 3
#: How long a scheduler that starts waits for the server to come up, or for its forerunner's session to end.
START_SECONDS = 10.0


def _translate(statement: str) -> str:
    """From :named parameters to psycopg's."""
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", statement.replace("%", "%%"))


_STATEMENTS = {name: _translate(statement) for name, statement in STATEMENTS.items()}


class Postgresql:
    """Comes back by itself: a connection that was lost is made again at the next transaction."""

    def __init__(self, url: str, access: Access) -> None:
        self.session = 0
        self._url = url
        self._access = access
        self._begin = "BEGIN" if access != Access.READ else "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        self._connection: psycopg.Connection[DictRow] | None = None
        #: Within a transaction: what needs no answer is sent without waiting for one.
        self._pipeline: psycopg.Pipeline | None = None
        self._leave: contextlib.ExitStack = contextlib.ExitStack()
        self._sent: list[tuple[str, int, psycopg.Cursor[DictRow]]] = []
        end = time.monotonic() + START_SECONDS
        while self._connection is None:
            try:
                self._connection = self._connect()
            except (psycopg.Error, TakenError) as error:
                if time.monotonic() > end:
                    why = f"the PostgreSQL database cannot be used: {self.unavailable(error) or error}"
                    raise UnavailableError(why) from error
                time.sleep(0.2)

    def begin(self) -> None:
        if self._connection is not None:
            try:
                self._start(self._connection)
                return
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self.close()
        self._connection = self._connect()
        self._start(self._connection)

    def _start(self, connection: "psycopg.Connection[DictRow]") -> None:
        self._sent.clear()
        # A connection that is gone is noticed here, before anything was done, and made anew.
        connection.execute(self._begin)
        if self._access != Access.READ:
            self._pipeline = self._leave.enter_context(connection.pipeline())

    def commit(self) -> None:
        self._settle()
        self._live.execute("COMMIT")
        self._leave_pipeline()

    def rollback(self) -> None:
        # With a connection that is gone, so is its transaction.
        with contextlib.suppress(psycopg.Error):
            self._leave_pipeline()
        with contextlib.suppress(psycopg.Error):
            self._live.execute("ROLLBACK")

    def savepoint(self) -> None:
        self._live.execute("SAVEPOINT item")

    def release(self) -> None:
        self._live.execute("RELEASE item")
        self._settle()

    def undo(self) -> None:
        self._sent.clear()
        with contextlib.suppress(psycopg.errors.PipelineAborted):
            self._sync()
        self._live.execute("ROLLBACK TO item")

    def all(self, statement: str, values: Values) -> Sequence[Row]:
        return self._live.execute(_STATEMENTS[statement], _storable(values)).fetchall()

    def each(self, statement: str, rows: Sequence[Values]) -> list[Sequence[Row]]:
        cursor = self._run_many(statement, rows, returning=True)
        return [found.fetchall() for found in cursor.results()]

    def change(self, statement: str, values: Values) -> int:
        cursor = self._live.execute(_STATEMENTS[statement], _storable(values))
        self._sync()
        return cursor.rowcount

    def send(self, statement: str, values: Values) -> None:
        self._live.execute(_STATEMENTS[statement], _storable(values))

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        self._run_many(statement, rows)

    def exactly(self, statement: str, rows: Sequence[Values]) -> None:
        self._sent.append((statement, len(rows), self._run_many(statement, rows)))

    def _run_many(self, statement: str, rows: Sequence[Values], returning: bool = False) -> "psycopg.Cursor[DictRow]":
        cursor = self._live.cursor()
        cursor.executemany(_STATEMENTS[statement], [_storable(values) for values in rows], returning=returning)
        return cursor

    def run(self, text: str) -> None:
        self._live.execute(text.encode())

    def _sync(self) -> None:
        if self._pipeline is not None:
            self._pipeline.sync()

    def _leave_pipeline(self) -> None:
        self._pipeline = None
        self._leave.close()

    def _settle(self) -> None:
        """Wait for the answers to all that was sent."""
        self._sync()
        for statement, wanted, cursor in self._sent:
            assert cursor.rowcount == wanted, f"{statement} changed {cursor.rowcount} rows, not {wanted}"
        self._sent.clear()

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._leave_pipeline()
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def unavailable(self, error: BaseException) -> str | None:
        away = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)
        if isinstance(error, (*away, UnavailableError)):
            return (str(error).splitlines() or [type(error).__name__])[0]
        return None

    @property
    def _live(self) -> "psycopg.Connection[DictRow]":
        if self._connection is None:
            raise UnavailableError("the connection to the database is lost")
        return self._connection

    def _connect(self) -> "psycopg.Connection[DictRow]":
        made = psycopg.connect(self._url, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_SECONDS)
        # A commit is answered once it is on disk, whatever the server's default.
        weak = "current_setting('synchronous_commit') = 'off'"
        made.execute(f"SELECT set_config('synchronous_commit', 'on', false) WHERE {weak}".encode())
        if self._access == Access.OWN:
            got = made.execute("SELECT pg_try_advisory_lock(%s) AS got", (LOCK,)).fetchone()
            if not got or not got["got"]:
                made.close()
                raise TakenError("another scheduler works on this database")
        self.session += 1
        return made


def _storable(values: Values) -> Mapping[str, object]:
    """PostgreSQL's text has no NUL."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
        for name, value in values.items()
    }
