"""Prometheus' HTTP API: the one client."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import structlog
from pydantic import BaseModel, ValidationError

from detector import matrix
from detector.matrix import LabelSets, Matrix
from detector.stages import stage

log = structlog.get_logger()

CREDENTIALS = "STETHOS_PROMETHEUS_CREDENTIALS"  # in the environment, for who gives no file
_QUERIES_KEPT = 200  # with their label sets
_UNPROCESSABLE = 422


class PrometheusError(Exception):
    """Prometheus did not answer a query; the message names the URL, the query and the reason."""


class RefusalError(PrometheusError):
    """Prometheus is there, and says no to this query. less: it may answer the same for a shorter time."""

    def __init__(self, message: str, less: bool) -> None:
        super().__init__(message)
        self.less = less


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

    timeout: seconds for a whole answer. credentials: `user:password` or a bearer token; else those in the URL, which
    `url` never shows. Raises PrometheusError for what is no URL or cannot be credentials.
    """

    def __init__(self, url: str, timeout: float = 10.0, credentials: str | None = None) -> None:
        address = _checked(url)
        self.url = str(address.copy_with(userinfo=b"")).rstrip("/")
        self.credentials = credentials or (f"{address.username}:{address.password}" if address.userinfo else None)
        self.warnings = 0  # answers that were partial, by what the server says
        # Packing the answer costs the server more than sending it.
        headers = {"Accept-Encoding": "identity"} | _authorization(self.credentials)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, headers=headers)
        self._timeout = timeout
        self._labels: dict[str, LabelSets] = {}
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def range(self, query: str, start: float, end: float, step: float) -> Matrix:
        """Evaluate a query at start, start + step, … end (Unix seconds). Raises PrometheusError."""
        with stage("query"):
            response, content = self._ask(query, start, end, step)
        with stage("parse"):
            return self._read(query, response, content)

    def _ask(self, query: str, start: float, end: float, step: float) -> tuple[httpx.Response, bytes]:
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        deadline = time.monotonic() + self._timeout
        try:
            with self._http.stream("POST", "/api/v1/query_range", data=form) as response:
                return response, b"".join(self._until(deadline, response))
        except httpx.HTTPError as error:
            raise PrometheusError(
                f"{self.url} does not answer {query!r}: {str(error) or type(error).__name__}"
            ) from error

    def _until(self, deadline: float, response: httpx.Response) -> Iterator[bytes]:
        """The pieces of an answer: httpx' own timeout begins anew with each of them."""
        for piece in response.iter_bytes():
            yield piece
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout(f"the answer is not there after {self._timeout:g} s")

    def _read(self, query: str, response: httpx.Response, content: bytes) -> Matrix:
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
            message = f"{self.url} refuses {query!r}: {answer.error}"
            raise RefusalError(message, response.status_code == _UNPROCESSABLE)
        if answer.warnings or answer.isPartial:
            self._warn(query, "; ".join(answer.warnings) or "a part of the store is down")
        return series or _matrix(answer.data.result)

    def _warn(self, query: str, warning: str) -> None:
        self.warnings += 1
        if query not in self._warned:
            self._warned.add(query)
            log.warning("an answer is not complete", query=query, warning=warning)


def credentials(file: Path | None) -> str | None:
    """What to show Prometheus: from a file or, without one, the environment. Raises PrometheusError."""
    if file is None:
        return os.environ.get(CREDENTIALS)
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PrometheusError(f"cannot read the credentials in {file}: {error}") from error
    if not text:
        raise PrometheusError(f"the credentials file {file} is empty")
    return text


def _authorization(credentials: str | None) -> dict[str, str]:
    if not credentials:
        return {}
    if ":" in credentials:
        return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}
    if not re.fullmatch(r"[!-~]+", credentials):
        raise PrometheusError("the credentials for Prometheus are neither user:password nor a bearer token")
    return {"Authorization": f"Bearer {credentials}"}


def _checked(url: str) -> httpx.URL:
    shown = re.sub(r"^(\w+://)?.*@", r"\1", url)  # what cannot be read may hold a password, too
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PrometheusError(f"{shown!r} is not a URL" + (f": {error}" if shown == url else "")) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise PrometheusError(f"{shown!r} is not a URL of a Prometheus, such as http://127.0.0.1:9090")
    if parsed.query or parsed.fragment:
        raise PrometheusError(f"{re.split('[?#]', shown)[0]!r} is followed by what is not part of a base URL")
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
