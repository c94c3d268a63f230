"""What is said of a GPU in labels: series whose value is 1."""

from collections.abc import Sequence

from exporters import exposition
from exporters.reading import GpuReading


def expose(readings: Sequence[GpuReading]) -> str:
    """`stethos_nvlink_island_info{gpu,UUID,island}`, for GPUs that have joined one."""
    samples = [
        (exposition.labels({"gpu": str(gpu.gpu), "UUID": gpu.uuid, "island": gpu.island}), 1)
        for reading in readings
        if (gpu := reading.identity).mig_id is None and gpu.island
    ]
    return exposition.family(
        "stethos_nvlink_island_info", "gauge", "Which NVLink domain the GPU has joined, and which part of it.", samples
    )
