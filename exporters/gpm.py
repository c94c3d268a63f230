"""Profiling metrics through NVML's GPM (Hopper and later): two samples, and what went on between them."""

from dataclasses import dataclass
from typing import Any

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Profile:
    """Activity between the last two looks; `None` where the GPU has no such counter."""

    graphics_active_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    pcie_tx_bytes_per_second: float | None = None
    pcie_rx_bytes_per_second: float | None = None


class Gpm:
    """The samples of one GPU. Where GPM is not supported it reads as nothing, never as zero."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle
        self._samples: list[Any] = []
        # field, GPM metric, factor: percent → ratio, MiB/s → B/s
        self._metrics = (
            ("graphics_active_ratio", library.NVML_GPM_METRIC_GRAPHICS_UTIL, 0.01),
            ("tensor_active_ratio", library.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 0.01),
            ("dram_active_ratio", library.NVML_GPM_METRIC_DRAM_BW_UTIL, 0.01),
            ("pcie_tx_bytes_per_second", library.NVML_GPM_METRIC_PCIE_TX_PER_SEC, _MEBIBYTE),
            ("pcie_rx_bytes_per_second", library.NVML_GPM_METRIC_PCIE_RX_PER_SEC, _MEBIBYTE),
        )
        self._has_sample = False
        try:
            if library.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                for _ in range(2):
                    self._samples.append(library.nvmlGpmSampleAlloc())
        except library.NVMLError:
            self.close()

    def read(self) -> Profile:
        """What happened since the last call; nothing on the first one."""
        if not self._samples:
            return Profile()
        try:
            self._library.nvmlGpmSampleGet(self._handle, self._samples[1])
            profile = self._between() if self._has_sample else Profile()
        except self._library.NVMLError:
            self._has_sample = False
            return Profile()
        self._samples.reverse()
        self._has_sample = True
        return profile

    def close(self) -> None:
        """Frees the samples."""
        for sample in self._samples:
            try:
                self._library.nvmlGpmSampleFree(sample)
            except self._library.NVMLError:
                continue
        self._samples = []

    def _between(self) -> Profile:
        library = self._library
        request = library.c_nvmlGpmMetricsGet_t()
        request.version = library.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(self._metrics)
        request.sample1, request.sample2 = self._samples
        for index, (_, metric, _) in enumerate(self._metrics):
            request.metrics[index].metricId = metric
        answer = library.nvmlGpmMetricsGet(request)
        return Profile(
            **{
                field: float(f"{answer.metrics[index].value * factor:.9g}")
                for index, (field, _, factor) in enumerate(self._metrics)
                if answer.metrics[index].nvmlReturn == library.NVML_SUCCESS
            }
        )
