"""What is said of a GPU in labels: series whose value is 1."""

from collections.abc import Sequence

from exporters import exposition
from exporters.reading import GpuReading


def expose(readings: Sequence[GpuReading]) -> str:
    """`stethos_nvlink_island_info{gpu,UUID,island}` of GPUs that have joined one, and what runs on each:
    `stethos_gpu_software_info{gpu,UUID,driver,vbios}`."""
    gpus = [reading.identity for reading in readings if reading.identity.mig_id is None]
    named = [({"gpu": str(gpu.gpu), "UUID": gpu.uuid}, gpu) for gpu in gpus]
    islands = [(exposition.labels(tags | {"island": gpu.island}), 1) for tags, gpu in named if gpu.island]
    software = [
        (exposition.labels(tags | {"driver": gpu.driver, "vbios": gpu.vbios}), 1)
        for tags, gpu in named
        if gpu.driver or gpu.vbios
    ]
    return exposition.family(
        "stethos_nvlink_island_info", "gauge", "Which NVLink domain the GPU has joined, and which part of it.", islands
    ) + exposition.family(
        "stethos_gpu_software_info", "gauge", "The versions of the driver and of the GPU's firmware.", software
    )
