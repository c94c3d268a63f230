"""What jobs do on a real node, each in a process of its own: python -m scheduler.agent.executors < attempt.

The attempt comes as one line of JSON; the last line on standard output is the result, or the reason of
the failure with exit code 1.
"""

import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Parameters = Mapping[str, Any]

SECONDS = 10.0
#: Rows of the square matrices, unless parameters say otherwise.
SIZE = 1024
CHUNK = 1_000_000


class JobFailedError(Exception):
    """The job's own failure; another node would not help."""


def sleep(seconds: float | None, parameters: Parameters) -> dict[str, object]:
    time.sleep(SECONDS if seconds is None else seconds)
    return {}


def compute(seconds: float | None, parameters: Parameters) -> dict[str, object]:
    """π by the midpoint rule, ∫ 4/(1+x²) over [0, 1], again and again: for `seconds`, or `iterations` points."""
    import numpy as np

    limit = parameters.get("iterations")
    end = time.monotonic() + (SECONDS if seconds is None else seconds)
    done, value = 0, math.pi
    while done < limit if limit is not None else (time.monotonic() < end or not done):
        points = min(CHUNK, limit - done) if limit is not None else CHUNK
        middles = (np.arange(points) + 0.5) / points
        value = float(np.mean(4.0 / (1.0 + middles * middles)))
        done += points
        if abs(value - math.pi) > 1.0 / (6.0 * points * points) + 1e-9:
            raise JobFailedError(f"the processor computed π as {value!r}")
    return {"iterations": done, "pi": value}


def matrix(seconds: float | None, parameters: Parameters) -> dict[str, object]:
    """Products of random matrices on the given GPUs, or on the processor where there is no card.

    Each product C = AB is verified by Freivalds' check (R. Freivalds, 1977): for a random vector r,
    A(Br) must equal Cr; that costs O(n²) and misses a wrong product with probability at most 1/2 per vector
    in exact arithmetic. Here r is Gaussian, and the tolerance is the rounding error of the float type.
    """
    size = int(parameters.get("size", SIZE))
    arrays, devices = _arrays()
    end = time.monotonic() + (SECONDS if seconds is None else seconds)
    started, products, worst = time.monotonic(), 0, 0.0
    while time.monotonic() < end or not products:
        for device in range(len(devices)):
            if arrays.__name__ == "cupy":
                with arrays.cuda.Device(device):
                    worst = max(worst, verified_product(arrays, size))
            else:
                worst = max(worst, verified_product(arrays, size))
            products += 1
    rate = 2.0 * size**3 * products / (time.monotonic() - started)
    return {"products": products, "size": size, "residual": worst, "gflops": rate / 1e9, "devices": devices}


def verified_product(arrays: ModuleType, size: int, multiply: Callable[[Any, Any], Any] | None = None) -> float:
    """One product, checked; the relative residual. Raises JobFailedError when it is wrong."""
    a = arrays.random.standard_normal((size, size)).astype(arrays.float32)
    b = arrays.random.standard_normal((size, size)).astype(arrays.float32)
    c = multiply(a, b) if multiply else a @ b
    r = arrays.random.standard_normal(size)
    expected = a.astype(arrays.float64) @ (b.astype(arrays.float64) @ r)
    residual = float(arrays.linalg.norm(c.astype(arrays.float64) @ r - expected) / arrays.linalg.norm(expected))
    # float32 sums of n terms err by about √n·ε; tensor cores may round inputs to TF32 (ε = 2⁻¹¹).
    tolerance = 4.0 * 2.0**-11
    if not residual <= tolerance:
        raise JobFailedError(f"a product is wrong: relative residual {residual:.3g} is above {tolerance:.3g}")
    return residual


def fault(seconds: float | None, parameters: Parameters) -> dict[str, object]:
    """Fails `after_seconds`, with `probability`; otherwise lasts its whole duration."""
    whole = SECONDS if seconds is None else seconds
    after = min(float(parameters.get("after_seconds", whole / 2)), whole)
    time.sleep(after)
    if random.random() < float(parameters.get("probability", 1.0)):  # noqa: S311 - no secret
        raise JobFailedError(f"failed as told after {after:g} s")
    time.sleep(whole - after)
    return {}


EXECUTORS: Mapping[str, Callable[[float | None, Parameters], dict[str, object]]] = {
    "sleep": sleep,
    "compute": compute,
    "matrix": matrix,
    "fault": fault,
}


def _arrays() -> tuple[ModuleType, list[str]]:
    """CuPy and the names of the cards it sees, or NumPy and the processor."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(card)["name"].decode() for card in range(count)]
        if names:
            return cupy, names
    except Exception as error:
        sys.stderr.write(f"no card, so NumPy: {error}\n")
    import numpy

    return numpy, ["cpu"]


def _end_with_the_agent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> int:
    attempt = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    try:
        result = EXECUTORS[attempt["type"]](attempt["duration_seconds"], attempt["parameters"])
    except JobFailedError as error:
        sys.stdout.write(json.dumps({"reason": str(error)}) + "\n")
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # The thread that waits for the agent sits in a read that an ordinary exit would wait for.
    os._exit(code)
