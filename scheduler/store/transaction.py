"""One open transaction: named statements, numbers in the order of commits, and the events that tell of its changes."""

import json
from collections.abc import Sequence

from ..clock import now
from .connection import Connection, Row, Value, Values

#: Where `undo` goes back to: the counters, and how many events there were.
Mark = tuple[dict[str, int], int]


class Transaction:
    """Numbers and events are kept here until `flush`, so that many changes share a few statements.

    `counters` are the values that are known already, from who alone may change them.
    """

    def __init__(self, connection: Connection, counters: dict[str, int] | None = None) -> None:
        self._connection = connection
        self._counters: dict[str, int] = counters or {}
        self._before = dict(self._counters)
        self._events: list[Values] = []
        self.now = now()

    @property
    def events(self) -> int:
        return len(self._events)

    def all(self, statement: str, **values: Value) -> Sequence[Row]:
        return self._connection.all(statement, values)

    def one(self, statement: str, **values: Value) -> Row | None:
        rows = self._connection.all(statement, values)
        return rows[0] if rows else None

    def each(self, statement: str, rows: Sequence[Values]) -> list[Sequence[Row]]:
        """The rows that the statement gives for each of the values."""
        return self._connection.each(statement, rows) if rows else []

    def change(self, statement: str, **values: Value) -> int:
        """How many rows were changed."""
        return self._connection.change(statement, values)

    def send(self, statement: str, **values: Value) -> None:
        """A change whose count nobody needs; it may fail as late as at the end of the write."""
        self._connection.send(statement, values)

    def many(self, statement: str, rows: Sequence[Values]) -> None:
        """`send` for each of the values."""
        if rows:
            self._connection.many(statement, rows)

    def exactly(self, statement: str, rows: Sequence[Values]) -> None:
        """The same, each a change of one row; another count is an AssertionError, as late."""
        if rows:
            self._connection.exactly(statement, rows)

    def counter(self, name: str) -> int:
        """Its value; held by this transaction from now on."""
        if name not in self._counters:
            row = self.one("hold_counter", name=name)
            assert row is not None, name
            self._counters[name] = self._before[name] = int(row["value"])
        return self._counters[name]

    def advance(self, name: str, by: int = 1) -> int:
        self._counters[name] = self.counter(name) + by
        return self._counters[name]

    def event(self, kind: str, subject: str, **data: object) -> None:
        """Told in the same commit as the change itself, or not at all."""
        known = {key: value for key, value in data.items() if value is not None}
        self._events.append(
            {
                "sequence": self.advance("event"),
                "time": self.now,
                "type": kind,
                "subject": subject,
                "data": json.dumps(known),
            }
        )

    def mark(self) -> Mark:
        return dict(self._counters), len(self._events)

    def undo(self, mark: Mark) -> None:
        self._counters = mark[0]
        del self._events[mark[1] :]

    def flush(self) -> dict[str, int]:
        """To be called once, before the commit. The counters as they are after it."""
        changed: list[Values] = [
            {"name": name, "value": value} for name, value in self._counters.items() if self._before.get(name) != value
        ]
        self.many("set_counter", changed)
        self.many("add_event", self._events)
        return self._counters
