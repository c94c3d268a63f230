"""Queries that Prometheus refuses while it answers others: a mistake in an expression, or more than it may load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog

from detector.promql import RefusalError

log = structlog.get_logger()


class Refusals:
    """How often each query was refused; told once when that begins and once when it ends."""

    def __init__(self, names: Iterable[str]) -> None:
        self.counts = dict.fromkeys(names, 0)
        self._last: frozenset[str] = frozenset()

    def note(self, refused: Mapping[str, RefusalError]) -> None:
        """What was refused of one round of queries, by name."""
        for name, error in refused.items():
            self.counts[name] += 1
            if name not in self._last:
                log.error("a query is refused", query=name, error=str(error))
        for name in self._last - refused.keys():
            log.info("a query is answered again", query=name)
        self._last = frozenset(refused)
