"""Profiling metrics through NVML's GPM (Hopper and later): two samples, and what went on between them."""

import math
from collections.abc import Callable
from typing import Any

from exporters.watch import Watch

_MEBIBYTE = 1 << 20


class Gpm:
    """The samples of one GPU or MIG instance. Where GPM is not supported it reads as nothing, never as zero.

    `sample` fills one sample; it is None when the device has no GPM.
    """

    def __init__(self, library: Any, watch: Watch, sample: Callable[[Any], Any] | None) -> None:
        self._library = library
        self._watch = watch
        self._sample = sample
        # field, GPM metric, factor: percent → ratio, MiB/s → B/s
        self._metrics = (
            ("graphics_active_ratio", library.NVML_GPM_METRIC_GRAPHICS_UTIL, 0.01),
            ("tensor_active_ratio", library.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 0.01),
            ("dram_active_ratio", library.NVML_GPM_METRIC_DRAM_BW_UTIL, 0.01),
            ("pcie_tx_bytes_per_second", library.NVML_GPM_METRIC_PCIE_TX_PER_SEC, _MEBIBYTE),
            ("pcie_rx_bytes_per_second", library.NVML_GPM_METRIC_PCIE_RX_PER_SEC, _MEBIBYTE),
            ("sm_active_ratio", library.NVML_GPM_METRIC_SM_UTIL, 0.01),
        )
        made = [watch.call("nvmlGpmSampleAlloc") for _ in range(2)] if sample else []
        self._samples = [each for each in made if each is not None]
        self._has_sample = False

    def read(self) -> dict[str, float]:
        """What happened since the last call, by field of a reading; nothing on the first one."""
        if len(self._samples) < 2 or self._sample is None or self._sample(self._samples[1]) is None:
            self._has_sample = False
            return {}
        between = self._between() if self._has_sample else {}
        self._samples.reverse()
        self._has_sample = True
        return between

    def close(self) -> None:
        """Frees the samples."""
        for sample in self._samples:
            self._watch.call("nvmlGpmSampleFree", sample)
        self._samples = []

    def _between(self) -> dict[str, float]:
        library = self._library
        request = library.c_nvmlGpmMetricsGet_t()
        request.version = library.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(self._metrics)
        request.sample1, request.sample2 = self._samples
        for index, (_, metric, _) in enumerate(self._metrics):
            request.metrics[index].metricId = metric
        answer = self._watch.call("nvmlGpmMetricsGet", request)
        if answer is None:
            return {}
        return {
            field: float(f"{answer.metrics[index].value * factor:.9g}")
            for index, (field, _, factor) in enumerate(self._metrics)
            if answer.metrics[index].nvmlReturn == library.NVML_SUCCESS and math.isfinite(answer.metrics[index].value)
        }
