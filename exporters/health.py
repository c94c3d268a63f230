"""What the NVML exporter says about its calls, and about the processes it sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from exporters import exposition
from exporters.device import Process
from exporters.watch import Watch


def calls(watches: Mapping[str, Watch]) -> str:
    """Failed calls by error, calls the GPU does not have, and the one under way, per GPU ("": of no GPU alone)."""
    failed: list[tuple[str, float]] = []
    absent: list[tuple[str, float]] = []
    pending: list[tuple[str, float]] = []
    for gpu, watch in watches.items():
        tags = {"gpu": gpu}
        for (call, error), count in sorted(watch.errors.copy().items()):
            failed.append((exposition.labels(tags | {"call": call, "error": error}), count))
        for call in sorted(watch.unsupported.copy()):
            absent.append((exposition.labels(tags | {"call": call}), 1))
        under_way = watch.pending()
        pending.append((exposition.labels(tags), round(under_way[1], 3) if under_way else 0))
    return "".join(
        (
            exposition.family(
                "stethos_exporter_call_errors_total", "counter", "Driver calls that failed, by error.", failed
            ),
            exposition.family(
                "stethos_exporter_call_unsupported", "gauge", "Driver calls this GPU does not support.", absent
            ),
            exposition.family(
                "stethos_exporter_call_pending_seconds",
                "gauge",
                "How long the driver call under way has not returned.",
                pending,
            ),
        )
    )


def processes(found: Mapping[int, Sequence[Process]], uuids: Mapping[int, str]) -> str:
    """`stethos_gpu_process_memory_bytes{gpu,UUID,pid,process}`."""
    samples = [
        (
            exposition.labels({"gpu": str(gpu), "UUID": uuids[gpu], "pid": str(each.pid), "process": name(each.pid)}),
            each.bytes,
        )
        for gpu, running in found.items()
        for each in running
    ]
    return exposition.family("stethos_gpu_process_memory_bytes", "gauge", "GPU memory that a process holds.", samples)


def name(pid: int, proc: Path = Path("/proc")) -> str:
    """What the process is called; nothing once it has gone."""
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
