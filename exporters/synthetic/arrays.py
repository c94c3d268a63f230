"""Structures of arrays: a dataclass whose fields are all one value per GPU, and which grows and shrinks."""

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Arrays = TypeVar("Arrays", bound="DataclassInstance")


def joined(first: Arrays, second: Arrays) -> Arrays:
    """Both, one after the other."""
    return type(first)(
        *(np.concatenate([getattr(first, each.name), getattr(second, each.name)]) for each in fields(first))
    )


def kept(arrays: Arrays, mask: Flags) -> Arrays:
    """Only the entries where `mask` holds."""
    return type(arrays)(*(getattr(arrays, each.name)[mask] for each in fields(arrays)))


def assigned(arrays: Arrays, index: Integers, values: Arrays) -> None:
    """Overwrites the entries at `index` with `values`, in order."""
    for each in fields(arrays):
        getattr(arrays, each.name)[index] = getattr(values, each.name)
