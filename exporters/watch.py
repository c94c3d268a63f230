"""Every call into a driver, watched: which is under way and since when, which failed and how, which do not exist."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Watch:
    """The calls that one thread makes, looked at by others."""

    def __init__(self, library: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()  # (call, error) → how often
        self.unsupported: set[str] = set()
        self._library = library
        self._monotonic = monotonic
        self._pending: tuple[str, float] | None = None
        absent = (library.NVML_ERROR_NOT_SUPPORTED, library.NVML_ERROR_FUNCTION_NOT_FOUND)
        self._absent = frozenset(absent)

    def call(self, name: str, *arguments: Any, expected: int | None = None, **more: Any) -> Any:
        """What the call gives; None where it fails, which is noted unless the error is `expected`."""
        function = getattr(self._library, name, None)
        if function is None:  # older bindings
            self.unsupported.add(name)
            return None
        try:
            with self.under_way(name):
                return function(*arguments, **more)
        except self._library.NVMLError as error:
            if error.value in self._absent:
                self.unsupported.add(name)
            elif error.value != expected:
                self.errors[name, type(error).__name__.removeprefix("NVMLError_")] += 1
            return None

    @contextmanager
    def under_way(self, name: str) -> Iterator[None]:
        """Shows the call as pending until it is over, whichever way."""
        self._pending = (name, self._monotonic())
        try:
            yield
        finally:
            self._pending = None

    def pending(self) -> tuple[str, float] | None:
        """The call under way and its seconds so far."""
        under_way = self._pending
        return None if under_way is None else (under_way[0], self._monotonic() - under_way[1])
