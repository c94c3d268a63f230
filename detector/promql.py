"""Prometheus' HTTP API: the one client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError


class PrometheusError(Exception):
    """Prometheus did not answer a query; the message names the URL, the query and the reason."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a range query: Unix seconds and values, [samples] each."""

    labels: Mapping[str, str]
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]


class _Row(BaseModel):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(BaseModel):
    result: list[_Row]


class _Answer(BaseModel):
    status: str
    data: _Data | None = None
    error: str = ""


class Prometheus:
    """A Prometheus-compatible server by its base URL."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def range(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate a query at start, start + step, … end (Unix seconds). Raises PrometheusError."""
        form = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        try:
            answer = _Answer.model_validate_json(self._http.post("/api/v1/query_range", data=form).content)
        except httpx.HTTPError as error:
            raise PrometheusError(
                f"{self.url} does not answer {query!r}: {str(error) or type(error).__name__}"
            ) from error
        except ValidationError as error:
            raise PrometheusError(f"{self.url} answers {query!r} with something that is not Prometheus'") from error
        if answer.status != "success" or answer.data is None:
            raise PrometheusError(f"{self.url} refuses {query!r}: {answer.error}")
        return [_series(row) for row in answer.data.result]


def _series(row: _Row) -> Series:
    timestamps = np.fromiter((at for at, _ in row.values), np.float64, len(row.values))
    values = np.fromiter((float(value) for _, value in row.values), np.float64, len(row.values))
    return Series(row.metric, timestamps, values)
