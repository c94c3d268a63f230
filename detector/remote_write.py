"""Prometheus' remote-write protocol, version 1: snappy around protobuf, read column by column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
MOST_BYTES = 1 << 26  # of a message; Prometheus sends well below one megabyte
_BYTES, _FIXED64, _VARINT = 2, 1, 0  # wire types
_FIRST, _SECOND = 1 << 3, 2 << 3  # field numbers, as they stand in a key


class PushError(ValueError):
    """A message is not a remote write; the message says how."""


@dataclass(frozen=True, slots=True)
class Push:
    """The samples of one message.

    labels: of each series, as they came; see `labels_of`. series: whose each sample is, an index into labels.
    timestamps: int64, Unix milliseconds. values: a series that ended has a NaN there, as one that reports NaN.
    """

    labels: tuple[bytes, ...]
    series: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]


def decode(body: bytes) -> Push:
    """Read a message. Raises PushError."""
    packed = np.frombuffer(body, np.uint8)
    size, begin = _varint(packed, 0, len(packed))
    if begin < 0 or not 0 <= size <= MOST_BYTES:
        raise PushError(f"a message of {len(body)} bytes is not packed with snappy")
    try:
        content = pa.Codec("snappy").decompress(body, decompressed_size=size, asbytes=True)
    except (OSError, pa.ArrowException) as error:
        raise PushError(f"a message of {len(body)} bytes is not packed with snappy: {error}") from error
    text = np.frombuffer(content, np.uint8)
    series, samples, begins, ends, owner, timestamps, bits = _scan(text)
    if series < 0:
        raise PushError(f"a message of {size} bytes is not a remote write of version 1")
    spans = zip(begins[:series].tolist(), ends[:series].tolist(), strict=True)
    return Push(
        tuple(content[start:end] for start, end in spans),
        owner[:samples],
        timestamps[:samples],
        bits[:samples].view(np.float64),
    )


def labels_of(field: bytes) -> dict[str, str]:
    """The labels of a series. Raises PushError."""
    text, at, found = np.frombuffer(field, np.uint8), 0, {}
    while at < len(field):
        _, inside, at = _field(text, at, len(field))
        first, name, name_end = _field(text, inside, at)
        second, value, value_end = _field(text, name_end, at)
        if value_end < 0 or (first, second) != (_FIRST | _BYTES, _SECOND | _BYTES):
            raise PushError(f"{field!r} are not the labels of a series")
        try:
            found[field[name:name_end].decode()] = field[value:value_end].decode()
        except UnicodeDecodeError as error:
            raise PushError(f"{field!r} are not labels: they are not UTF-8") from error
    return found


@njit(cache=True, nogil=True)
def _varint(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends; an end of -1 where there is none."""
    value, shift = 0, 0
    while 0 <= at < end and shift < 64:
        value |= int(text[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if text[at - 1] < 128:
            return value, at
    return 0, -1


@njit(cache=True, nogil=True)
def _field(text: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """The key of the field that starts here, and where its content begins and ends; -1 where it is cut off."""
    key, begin = _varint(text, at, end)
    stop, wire = -1, key & 7
    if begin >= 0 and wire == _VARINT:
        _, stop = _varint(text, begin, end)
    elif begin >= 0 and wire == _BYTES:
        size, begin = _varint(text, begin, end)
        if begin >= 0 and 0 <= size <= end - begin:
            stop = begin + size
    elif begin >= 0 and wire == _FIXED64 and begin + 8 <= end:
        stop = begin + 8
    return key, begin, stop


@njit(cache=True, nogil=True)
def _sample(text: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """Timestamp and the bits of the value; an end of -1 where it is cut off. What is zero is left out."""
    timestamp, bits = 0, 0
    while 0 <= at < end:
        key, begin, stop = _field(text, at, end)
        if stop >= 0 and key == _FIRST | _FIXED64:
            for place in range(8):
                bits |= int(text[begin + place] & 255) << 8 * place
        elif stop >= 0 and key == _SECOND | _VARINT:
            timestamp, _ = _varint(text, begin, stop)
        at = stop
    return timestamp, bits, at


@njit(cache=True, nogil=True)
def _scan(
    text: Bytes,
) -> tuple[int, int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """How many series and samples there are (-1 series: none of this is a remote write), and their columns."""
    most = 1 + text.size // 2  # a series or a sample is two bytes at least
    begins, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    owner, timestamps, bits = np.empty(most, np.int32), np.empty(most, np.int64), np.empty(most, np.int64)
    series, samples, at = 0, 0, 0
    while at < text.size:
        key, begin, at = _field(text, at, text.size)
        if at < 0:
            return -1, 0, begins, ends, owner, timestamps, bits
        if key != _FIRST | _BYTES:
            continue
        begins[series] = ends[series] = begin
        inside = begin
        while inside < at:
            start = inside
            key, begin, inside = _field(text, start, at)
            if key == _FIRST | _BYTES and start == ends[series]:
                ends[series] = inside
            elif key == _SECOND | _BYTES:
                timestamps[samples], bits[samples], end = _sample(text, begin, inside)
                owner[samples] = series
                samples += 1
                inside = end if end < 0 else inside
            if inside < 0 or (key == _FIRST | _BYTES and ends[series] != inside):
                return -1, 0, begins, ends, owner, timestamps, bits
        series += 1
    return series, samples, begins, ends, owner, timestamps, bits
