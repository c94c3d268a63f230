"""What every op takes: arrays of NumPy or CuPy, worked on where they lie."""

import sys
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# NumPy's types stand for CuPy's too, whose arrays answer the same calls.
Floats = NDArray[np.float32 | np.float64]
Integers = NDArray[np.int32 | np.int64]

# A dtype compares with a type ten times as slowly as with a dtype.
FLOATS = np.dtype(np.float32), np.dtype(np.float64)
INTEGERS = np.dtype(np.int32), np.dtype(np.int64)


def module_of(array: object, name: str = "values") -> ModuleType:
    """NumPy or CuPy, whichever the array is of."""
    if isinstance(array, np.ndarray):
        return np
    cupy = sys.modules.get("cupy")  # an array of CuPy's cannot exist before CuPy is imported
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    raise TypeError(f"{name} must be a NumPy or a CuPy array, got {type(array).__name__}")


@cache
def version(op: str, module: ModuleType) -> ModuleType:
    """The op's version for NumPy's or CuPy's arrays.

    Imported late: Numba takes a second to load, and its CUDA half is not there without the extra.
    """
    return import_module(f"kernels.{op}.{'cpu' if module is np else 'cuda'}")


def check_floats(values: Floats, name: str = "values") -> None:
    if values.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {values.dtype}")


def check_series(values: Floats) -> None:
    check_floats(values)
    if values.ndim not in (2, 3):
        raise ValueError(f"values must be [series, steps] or [signals, gpus, steps], got shape {values.shape}")


def check_positive(number: int, name: str, unit: str) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1 {unit}, got {number}")


@cache
def _names(kind: "type[DataclassInstance]") -> tuple[str, ...]:
    """Of a dataclass's fields, which take as long to list as a small array to work on."""
    return tuple(field.name for field in fields(kind))


def check_results(out: "DataclassInstance", shapes: Iterable[tuple[int, ...]], values: Floats) -> None:
    """Arrays to write into, one per shape, are like the values in all but their shape."""
    kind, dtype = type(values), values.dtype
    for name, shape in zip(_names(type(out)), shapes, strict=False):
        array = getattr(out, name)
        if type(array) is not kind:
            raise TypeError(f"out.{name} must lie where values lie, got {type(array).__name__}")
        if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(f"out.{name} must be C-contiguous {dtype} {shape}, got {array.dtype} {array.shape}")
