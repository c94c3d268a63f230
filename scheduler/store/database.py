"""The store: functions run in transactions, one thread that writes and one that reads.

Writes that come while another is being committed share the next commit (group commit). What is answered is on disk.
Where one of them fails all are undone and done again, each in its own savepoint: what fails is undone by itself.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import structlog

from ..clock import now
from .connection import Access, Connection, UnavailableError
from .migration import migrate
from .sqlite import Sqlite
from .transaction import Transaction

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")

log = structlog.get_logger()

#: Writes in one commit, at most.
BATCH = 128
#: Writes that may wait; more are refused, so that an answer still comes in time.
BACKLOG = 5000


@dataclass(frozen=True, slots=True)
class _Write:
    #: Takes the items of all neighbours with the same work, and gives as many results.
    work: Callable[[Transaction, Sequence[object]], Sequence[object]]
    item: object
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[object]"

    def settle(self, result: object, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)


#: What came of a write: its result, or what it raised.
_Outcome = tuple[object, Exception | None]


class Store:
    """`database` is the path of an SQLite file, or a postgresql:// URL.

    Raises UnavailableError when it cannot be opened, TakenError when another scheduler owns it.
    """

    def __init__(self, database: Path | str, access: Access = Access.OWN) -> None:
        self._access = access
        self._connection = connect(database, access)
        #: The counters after the last commit, and the session in which they were read.
        self._counters: tuple[int, dict[str, int]] = (0, {})
        migrate(self._connection)
        self._reading = connect(database, Access.READ)
        self._pending: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._listeners: list[Callable[[], None]] = []
        self._writer.start()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, on the event loop, after each commit that told an event."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    async def write(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a transaction and commit it. What it raises undoes all of it.

        `work` changes nothing but the database: it may run in vain. Raises UnavailableError.
        """
        return await self.together(lambda tx, _: [work(tx, *args, **kwargs)], None)

    async def together(self, work: Callable[[Transaction, Sequence[Item]], Sequence[T]], item: Item) -> T:
        """Like `write`, but `work` does what waits for it at once: all items in order, for as many results.

        It may raise whatever one of them is to raise: then it is run again for each alone.
        """
        if self._pending.qsize() >= BACKLOG:
            raise UnavailableError(f"{BACKLOG} changes wait for the database")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._pending.put(_Write(work, item, loop, answer))  # type: ignore[arg-type]
        return await answer

    async def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, on one consistent state. Raises UnavailableError."""

        def run() -> T:
            try:
                self._reading.begin()
                try:
                    return work(Transaction(self._reading), *args, **kwargs)
                finally:
                    self._reading.rollback()
            except Exception as error:
                raise _explained(self._reading, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)

    async def check(self) -> None:
        """Raises UnavailableError when nothing can be written."""
        await self.write(lambda tx: tx.change("put_setting", name="checked_at", value=str(tx.now)))

    def close(self) -> None:
        self._pending.put(None)
        self._writer.join()
        self._reader.shutdown(wait=True)
        self._connection.close()
        self._reading.close()

    def _write_all(self) -> None:
        while batch := self._take():
            outcomes, told = self._commit(batch)
            loops = {write.loop for write in batch}
            for loop in loops:
                mine = [(write, *outcome) for write, outcome in zip(batch, outcomes, strict=True) if write.loop is loop]
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._settle, mine, told)

    def _take(self) -> list[_Write]:
        """All that waits, once something does; nothing after `close`."""
        batch: list[_Write] = []
        while len(batch) < BATCH:
            try:
                write = self._pending.get(block=not batch)
            except queue.Empty:
                break
            if write is None:
                if batch:
                    self._pending.put(None)
                break
            batch.append(write)
        return batch

    def _commit(self, batch: Sequence[_Write]) -> tuple[list[_Outcome], bool]:
        done = self._transact(batch, self._all)
        if isinstance(done, Exception) and len(batch) > 1 and not isinstance(done, UnavailableError):
            done = self._transact(batch, self._each)
        return ([(None, done)] * len(batch), False) if isinstance(done, Exception) else done

    def _transact(
        self, batch: Sequence[_Write], work: Callable[[Transaction, Sequence[_Write]], list[_Outcome]]
    ) -> tuple[list[_Outcome], bool] | Exception:
        """What came of each, and whether an event was told; or why nothing was changed."""
        try:
            self._connection.begin()
            tx = Transaction(self._connection, self._known())
            outcomes = work(tx, batch)
            counters = tx.flush()
            self._connection.commit()
            self._counters = self._connection.session, counters
            return outcomes, tx.events > 0
        except Exception as error:
            self._counters = 0, {}
            self._undo_all()
            return _explained(self._connection, error)

    def _known(self) -> dict[str, int]:
        """While nobody else may have counted, the counters need not be read."""
        session, counters = self._counters
        return dict(counters) if self._access == Access.OWN and session == self._connection.session else {}

    def _all(self, tx: Transaction, batch: Sequence[_Write]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        for work, same in groupby(batch, attrgetter("work")):
            tx.now = max(tx.now, now())
            outcomes += [(result, None) for result in work(tx, [write.item for write in same])]
        return outcomes

    def _each(self, tx: Transaction, batch: Sequence[_Write]) -> list[_Outcome]:
        return [self._try(tx, write) for write in batch]

    def _try(self, tx: Transaction, write: _Write) -> _Outcome:
        tx.now = max(tx.now, now())
        mark = tx.mark()
        self._connection.savepoint()
        try:
            (result,) = write.work(tx, [write.item])
            self._connection.release()
            return result, None
        except Exception as error:
            if self._connection.unavailable(error):
                raise
            self._connection.undo()
            tx.undo(mark)
            return None, error

    def _undo_all(self) -> None:
        try:
            self._connection.rollback()
        except Exception:
            log.exception("a rollback failed")

    def _settle(self, done: Sequence[tuple[_Write, object, Exception | None]], told: bool) -> None:
        for write, result, error in done:
            write.settle(result, error)
        if told:
            for listener in tuple(self._listeners):
                listener()


def connect(database: Path | str, access: Access) -> Connection:
    scheme, found, _ = str(database).partition("://")
    if not found:
        return Sqlite(Path(database), access)
    if scheme not in ("postgresql", "postgres"):
        raise UnavailableError(f"the database {scheme}://... is neither a file nor a postgresql:// URL")
    # psycopg is loaded only where it is used.
    from .postgresql import Postgresql

    return Postgresql(str(database), access)


def _explained(connection: Connection, error: Exception) -> Exception:
    """An error of the database itself as UnavailableError; every other one as it is."""
    why = connection.unavailable(error)
    return UnavailableError(why) if why else error
