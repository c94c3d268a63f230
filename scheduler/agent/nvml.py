"""This machine's power limits through NVML. The agent's only importer of `pynvml`; tests hand in a library like it."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from .cooling import Card, LimitError


def load() -> Any:
    """The real library (it ships no types). Raises LimitError where it is not installed."""
    try:
        import pynvml
    except ImportError as error:
        raise LimitError("cooling needs the package nvidia-ml-py") from error
    return pynvml


class NvmlCards:
    """The GPUs of this machine. Setting a limit takes root, as in nvidia-smi."""

    def __init__(self, library: Any, node: str) -> None:
        """Raises LimitError where there is no driver."""
        self._library, self._node = library, node
        try:
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
        except library.NVMLError as error:
            raise LimitError(f"NVML cannot be used here: {error}") from error
        self._count = int(count)

    async def read(self) -> Sequence[Card]:
        # A driver that hangs must not keep the agent from its heartbeats.
        return await asyncio.to_thread(self._read)

    async def limit(self, card: Card, watts: float) -> None:
        try:
            await asyncio.to_thread(self._limit, card.gpu, watts)
        except self._library.NVMLError as error:
            raise LimitError(f"its power limit cannot be set: {error}") from error

    async def close(self) -> None:
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _read(self) -> list[Card]:
        cards = (self._card(index) for index in range(self._count))
        return [card for card in cards if card]

    def _card(self, index: int) -> Card | None:
        """None where it does not tell all that is needed; such a GPU is left alone."""
        nvml = self._library
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            least, _ = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
            uuid = nvml.nvmlDeviceGetUUID(handle)
            return Card(
                node=self._node,
                gpu=index,
                uuid=uuid.decode() if isinstance(uuid, bytes) else uuid,
                celsius=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
                draw_watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                limit_watts=nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
                least_watts=least / 1000,
            )
        except nvml.NVMLError:
            return None

    def _limit(self, index: int, watts: float) -> None:
        handle = self._library.nvmlDeviceGetHandleByIndex(index)
        self._library.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1000))
