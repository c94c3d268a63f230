"""The series of a range query's answer, read column by column: a fleet's answer is megabytes of JSON every step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

_RESULT = b'"result":['
_METRIC, _VALUES = np.frombuffer(b'{"metric":', np.uint8), np.frombuffer(b',"values":[', np.uint8)
_TENS = np.power(
    10.0, np.arange(23), dtype=np.float64
)  # exact in binary: with a mantissa below 2**53 a quotient is rounded once

Labels = Mapping[str, str]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every sample of an answer: whose it is (a row of `labels`), Unix seconds and value, [samples] each."""

    labels: tuple[Labels, ...]
    series: NDArray[np.int32]
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]


class LabelSets:
    """The label sets of a query's answers. They seldom change, so those of the last answer are kept."""

    def __init__(self) -> None:
        self._text = b""
        self._ends = np.zeros(0, np.int64)
        self._known: dict[bytes, Labels] = {}
        self._labels: tuple[Labels, ...] = ()

    def read(self, text: bytes, ends: NDArray[np.int64]) -> tuple[Labels, ...]:
        """text: JSON objects one after the other, ending at `ends`. While nothing changed it is the same object."""
        if text != self._text or not np.array_equal(ends, self._ends):
            pieces = [text[start:end] for start, end in pairwise([0, *ends.tolist()])]
            self._known = {piece: self._known.get(piece) or json.loads(piece) for piece in pieces}
            self._labels = tuple(self._known[piece] for piece in pieces)
            self._text, self._ends = text, ends
        return self._labels


def cut(answer: bytes, labels: LabelSets) -> tuple[bytes, Matrix] | None:
    """The answer without its series, and those; None when it is not laid out as Prometheus does it."""
    start = answer.find(_RESULT)
    if start < 0:
        return None
    start += len(_RESULT)
    scanned = _scan(np.frombuffer(answer, np.uint8), start, _METRIC, _VALUES, _TENS)
    end, samples, count, owner, timestamps, values, text, ends = scanned
    if end < 0:
        return None
    rest = answer[:start] + answer[end:]
    text_used = int(ends[count - 1]) if count else 0
    sets = labels.read(text[:text_used].tobytes(), ends[:count])
    return rest, Matrix(sets, owner[:samples], timestamps[:samples], values[:samples])


@njit(cache=True, nogil=True)
def _follows(text: Bytes, at: int, wanted: Bytes) -> bool:
    if at + wanted.size > text.size:
        return False
    for place in range(wanted.size):  # noqa: SIM110 — Numba knows no all()
        if text[at + place] != wanted[place]:
            return False
    return True


@njit(cache=True, nogil=True)
def _object_end(text: Bytes, at: int) -> int:
    """Behind the flat JSON object that starts here; -1 if there is none."""
    quoted = False
    while at < text.size:
        byte = text[at]
        if quoted:
            if byte == 92:  # a backslash: the next one does not count
                at += 1
            elif byte == 34:
                quoted = False
        elif byte == 34:
            quoted = True
        elif byte == 125:
            return at + 1
        at += 1
    return -1


@njit(cache=True, nogil=True)
def _number(text: Bytes, at: int, tens: NDArray[np.float64]) -> tuple[float, int]:
    """A decimal number, NaN, +Inf or -Inf, and where it ends; an end of -1 where there is none."""
    negative = text[at] == 45
    if negative or text[at] == 43:
        at += 1
    if text[at] == 73:  # Inf
        return (-np.inf if negative else np.inf), at + 3
    if text[at] == 78:  # NaN
        return np.nan, at + 3
    mantissa, power, digits, fraction = 0.0, 0, 0, False
    while at < text.size:
        byte = text[at]
        if 48 <= byte <= 57:
            if digits < 17:
                mantissa = mantissa * 10.0 + (byte - 48)
                digits += mantissa > 0
                power -= fraction
            else:
                power += not fraction
        elif byte == 46 and not fraction:
            fraction = True
        else:
            break
        at += 1
    if at < text.size and (text[at] == 101 or text[at] == 69):
        at += 1
        downward = text[at] == 45
        if downward or text[at] == 43:
            at += 1
        exponent = 0
        while at < text.size and 48 <= text[at] <= 57:
            exponent = exponent * 10 + (text[at] - 48)
            at += 1
        power += -exponent if downward else exponent
    if -22 <= power < 0:
        mantissa /= tens[-power]
    elif 0 < power <= 22:
        mantissa *= tens[power]
    elif power != 0:
        mantissa *= 10.0**power
    return (-mantissa if negative else mantissa), at


@njit(cache=True, nogil=True)
def _scan(
    text: Bytes, at: int, metric: Bytes, values_: Bytes, tens: NDArray[np.float64]
) -> tuple[
    int, int, int, NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int64]
]:
    """From behind `"result":[` to its end: where that is, how many samples and series, and their columns."""
    most = 1 + (text.size - at) // 7  # [1,"1"] is the shortest sample
    owner, timestamps, values = np.empty(most, np.int32), np.empty(most), np.empty(most)
    labels, ends = np.empty(text.size - at, np.uint8), np.empty(1 + (text.size - at) // 20, np.int64)
    samples, series, written = 0, 0, 0
    failed = (-1, 0, 0, owner, timestamps, values, labels, ends)
    if text[at] == 93:
        return at, 0, 0, owner, timestamps, values, labels, ends
    while _follows(text, at, metric):
        begin = at + metric.size
        end = _object_end(text, begin)
        if end < 0 or text[begin] != 123 or not _follows(text, end, values_):
            return failed
        labels[written : written + end - begin] = text[begin:end]
        written += end - begin
        ends[series] = written
        at = end + values_.size
        while at < text.size and text[at] == 91:
            timestamp, at = _number(text, at + 1, tens)
            if at + 2 >= text.size or text[at] != 44 or text[at + 1] != 34:
                return failed
            value, at = _number(text, at + 2, tens)
            if at + 2 >= text.size or text[at] != 34 or text[at + 1] != 93:
                return failed
            owner[samples], timestamps[samples], values[samples] = series, timestamp, value
            samples += 1
            at += 2
            if text[at] == 44:
                at += 1
        if at + 2 >= text.size or text[at] != 93 or text[at + 1] != 125:
            return failed
        series += 1
        at += 2
        if text[at] == 93:
            return at, samples, series, owner, timestamps, values, labels, ends
        at += 1
    return failed
