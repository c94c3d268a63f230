"""Readings → DCGM's families: its names, types, HELP, units, labels and their order."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, get_args

from exporters import exposition, xid
from exporters.families import FAMILIES, Family, Kind
from exporters.reading import GpuIdentity, GpuReading

Names = Literal["legacy", "dcgm47", "both"]
NAMES: tuple[Names, ...] = get_args(Names)

# (GPU, MIG instance or None) → the jobs on it
Jobs = Mapping[tuple[int, int | None], Sequence[str]]


def expose(readings: Sequence[GpuReading], hostname: str, names: Names = "legacy", jobs: Jobs | None = None) -> str:
    """The text of all families; a field that is `None` has no sample, a family without samples no header.

    A GPU with jobs has each series once for every job, with the label `hpc_job`.
    """
    tagged = [
        (_labels(reading.identity, hostname, names), hpc_job, reading)
        for reading in readings
        for hpc_job in _jobs(reading.identity, jobs)
    ]
    texts: list[str] = []
    for field, family in FAMILIES.items():
        samples = [
            (f"{{{tags}{_error(value) if field == 'xid_code' else ''}{hpc_job}}}", value)
            for tags, hpc_job, reading in tagged
            if (value := getattr(reading, field)) is not None
        ]
        if samples:
            texts += [_family(form, samples) for form in _forms(family, names)]
    return "".join(texts)


Form = tuple[str, Kind, str, float]


def _forms(family: Family, names: Names) -> Iterator[Form]:
    # (name, type, HELP, factor) of each name the family goes by
    if names != "dcgm47" or family.renamed is None:
        yield family.name, family.kind, family.explanation, 1.0
    if names != "legacy" and family.renamed is not None:
        new = family.renamed
        yield new.name, family.kind, new.explanation or family.explanation, new.factor


def _family(form: Form, samples: Sequence[tuple[str, float]]) -> str:
    name, kind, explanation, factor = form
    if factor != 1.0:
        samples = [(tags, float(f"{value * factor:.15g}")) for tags, value in samples]
    return exposition.family(name, kind, explanation, samples)


@lru_cache(maxsize=65_536)
def _labels(identity: GpuIdentity, hostname: str, names: Names) -> str:
    pairs = {
        "gpu": str(identity.gpu),
        "UUID": identity.uuid,
        "pci_bus_id": identity.pci_bus_id,
        "device": f"nvidia{identity.minor}",
        "modelName": identity.model,
    }
    if identity.mig_profile is not None:
        pairs |= {"GPU_I_PROFILE": identity.mig_profile, "GPU_I_ID": str(identity.mig_id)}
    # dcgm-exporter writes it small since 4.8.3; who reads both generations finds both.
    if names != "dcgm47":
        pairs["Hostname"] = hostname
    if names != "legacy":
        pairs["hostname"] = hostname
    return exposition.labels(pairs)[1:-1]


def _jobs(identity: GpuIdentity, jobs: Jobs | None) -> list[str]:
    found = jobs.get((identity.gpu, identity.mig_id), ()) if jobs else ()
    return [f",{exposition.labels({'hpc_job': job})[1:-1]}" for job in found] or [""]


@lru_cache(maxsize=512)
def _error(code: float) -> str:
    pairs = {"err_code": str(int(code)), "err_msg": xid.message(int(code))}
    return f",{exposition.labels(pairs)[1:-1]}"
