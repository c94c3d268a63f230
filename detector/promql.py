"""Prometheus' HTTP API: the one client."""

from __future__ import annotations

from typing import Self

import httpx
import numpy as np
import structlog
from pydantic import BaseModel, ValidationError

from detector import matrix
from detector.matrix import LabelSets, Matrix
from detector.stages import stage

log = structlog.get_logger()

_QUERIES_KEPT = 200  # with their label sets


class PrometheusError(Exception):
    """Prometheus did not answer a query; the message names the URL, the query and the reason."""


class _Row(BaseModel):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(BaseModel):
    result: list[_Row]


class _Answer(BaseModel):
    status: str
    data: _Data | None = None
    error: str = ""
    warnings: list[str] = []
    isPartial: bool = False  # noqa: N815 — VictoriaMetrics' way to say that a part of it is down


class Prometheus:
    """A Prometheus-compatible server by its base URL. May be asked from several threads at once.

    Raises PrometheusError for what is no URL.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.warnings = 0  # answers that were partial, by what the server says
        # Packing the answer costs the server more than sending it.
        self._http = httpx.Client(base_url=_checked(url), timeout=timeout, headers={"Accept-Encoding": "identity"})
        self._labels: dict[str, LabelSets] = {}
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def range(self, query: str, start: float, end: float, step: float) -> Matrix:
        """Evaluate a query at start, start + step, … end (Unix seconds). Raises PrometheusError."""
        with stage("query"):
            response = self._ask(query, start, end, step)
        with stage("parse"):
            return self._read(query, response)

    def _ask(self, query: str, start: float, end: float, step: float) -> httpx.Response:
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        try:
            return self._http.post("/api/v1/query_range", data=form)
        except httpx.HTTPError as error:
            raise PrometheusError(
                f"{self.url} does not answer {query!r}: {str(error) or type(error).__name__}"
            ) from error

    def _read(self, query: str, response: httpx.Response) -> Matrix:
        content = response.content
        if len(self._labels) > _QUERIES_KEPT:
            self._labels.clear()
        found = matrix.cut(content, self._labels.setdefault(query, LabelSets()))
        rest, series = found if found else (content, None)
        try:
            answer = _Answer.model_validate_json(rest)
        except ValidationError as error:
            how = "" if response.is_success else f" (HTTP {response.status_code} {response.reason_phrase})"
            raise PrometheusError(
                f"{self.url} answers {query!r} with something that is not Prometheus'{how}"
            ) from error
        if answer.status != "success" or answer.data is None:
            raise PrometheusError(f"{self.url} refuses {query!r}: {answer.error}")
        if answer.warnings or answer.isPartial:
            self._warn(query, "; ".join(answer.warnings) or "a part of the store is down")
        return series or _matrix(answer.data.result)

    def _warn(self, query: str, warning: str) -> None:
        self.warnings += 1
        if query not in self._warned:
            self._warned.add(query)
            log.warning("an answer is not complete", query=query, warning=warning)


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PrometheusError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise PrometheusError(f"{url!r} is not a URL of a Prometheus, such as http://127.0.0.1:9090")
    return parsed


def _matrix(rows: list[_Row]) -> Matrix:
    """The same from JSON laid out in any way."""
    lengths = [len(row.values) for row in rows]
    samples = [sample for row in rows for sample in row.values]
    return Matrix(
        tuple(row.metric for row in rows),
        np.repeat(np.arange(len(rows), dtype=np.int32), lengths),
        np.array([at for at, _ in samples], np.float64),
        np.array([float(value) for _, value in samples], np.float64),
    )
