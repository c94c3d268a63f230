"""Series DCGM has no good name for: XIDs by code with a time, and each reason for the current clocks as 0 or 1."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from exporters import exposition, xid
from exporters.reading import GpuIdentity, GpuReading

# PromQL cannot take a bitmask apart. The bit of each reason, called as in DCGM_EXP_CLOCK_EVENTS_COUNT.
REASONS = {
    "gpu_idle": 0x1,
    "clocks_setting": 0x2,
    "power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
    "display_clocks": 0x100,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """How often a code came, and when last (Unix seconds)."""

    count: int
    last_seconds: float


def clocks(readings: Sequence[GpuReading]) -> str:
    """`stethos_gpu_clocks_event{gpu,UUID,reason}`, for GPUs that tell."""
    samples = []
    for reading in readings:
        if reading.clocks_event_reasons is not None and reading.identity.mig_id is None:
            mask = int(reading.clocks_event_reasons)
            tags = _reason_labels(reading.identity)
            samples += [(each, 1 if mask & bit else 0) for each, bit in zip(tags, REASONS.values(), strict=True)]
    return exposition.family(
        "stethos_gpu_clocks_event", "gauge", "Whether the reason holds the clocks now (1) or not (0).", samples
    )


def xids(identities: Iterable[GpuIdentity], seen: Mapping[tuple[int, int], Seen]) -> str:
    """`stethos_gpu_xid_errors_total{gpu,UUID,xid}` and when last; `seen` is keyed by (GPU, code)."""
    counts: list[tuple[str, float]] = []
    times: list[tuple[str, float]] = []
    for identity in identities:
        codes = {code for gpu, code in seen if gpu == identity.gpu}
        for code in sorted(codes.union(xid.WATCHED)):
            tags = _xid_labels(identity, code)
            event = seen.get((identity.gpu, code))
            counts.append((tags, event.count if event else 0))
            if event:
                times.append((tags, round(event.last_seconds, 3)))
    return exposition.family(
        "stethos_gpu_xid_errors_total", "counter", "XID errors since the exporter started, by code.", counts
    ) + exposition.family("stethos_gpu_xid_last_seen_timestamp_seconds", "gauge", "When the XID was last seen.", times)


@lru_cache(maxsize=65_536)
def _reason_labels(identity: GpuIdentity) -> tuple[str, ...]:
    gpu = {"gpu": str(identity.gpu), "UUID": identity.uuid}
    return tuple(exposition.labels(gpu | {"reason": reason}) for reason in REASONS)


@lru_cache(maxsize=262_144)
def _xid_labels(identity: GpuIdentity, code: int) -> str:
    return exposition.labels({"gpu": str(identity.gpu), "UUID": identity.uuid, "xid": str(code)})
