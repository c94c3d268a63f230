"""Where the arithmetic is done, and the ways there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DeviceError(ValueError):
    """There is no such device; the message says what to do."""


def chosen(name: str) -> torch.device:
    """The device of that name: cpu, cuda (the first card) or cuda:N. Raises DeviceError where it cannot be used."""
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (kind == "cpu" and ":" in name) or (":" in name and not number.isdecimal()):
        raise DeviceError(f"device {name!r} is none of cpu, cuda, cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise DeviceError(
            f"device {name} needs a torch built for CUDA, not {torch.__version__}: install one, or use cpu"
        )
    cards = torch.cuda.device_count()
    index = int(number or 0)
    if index >= cards:
        raise DeviceError(f"device {name} is not there: torch sees {cards} cards; is the NVIDIA driver installed?")
    if find_spec("cupy") is None:
        raise DeviceError(f"device {name} needs CuPy: install the gpu extra")
    return torch.device("cuda", index)


def _chosen(_: click.Context, __: click.Parameter, name: str) -> torch.device:
    try:
        return chosen(name)
    except DeviceError as error:
        raise click.BadParameter(str(error)) from error


option = click.option(
    "--device", default="cpu", callback=_chosen, help="Where the model works: cpu, cuda (the first card) or cuda:N."
)


def placed(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A NumPy array's values on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def shown(tensor: Tensor) -> Any:
    """The same memory as an array that the kernels take: NumPy's, or CuPy's on a card."""
    if tensor.device.type == "cpu":
        return tensor.numpy()
    import cupy

    return cupy.from_dlpack(tensor)


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes it the one that libraries take which are not told of any; each thread has its own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def waited(device: torch.device) -> None:
    """Return when everything started on the device has ended."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
