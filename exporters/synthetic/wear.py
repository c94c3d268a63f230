"""What breaks a little at a time: memory cells, links, lanes; and the XIDs that tell of it."""

import numpy as np

from exporters.synthetic.arrays import Flags, Floats, Integers
from exporters.synthetic.impairment import Impairment
from exporters.synthetic.physics import Cards, State, used_mebibytes
from exporters.synthetic.workload import Demand

_REMAPPED_SHARE = 0.002  # of corrected errors
_ROWS_PER_BANK = 8  # spare rows, after which a remap fails
_FLAP_SECONDS = 40.0
_DOWN_SECONDS = (3.0, 15.0)

Incident = tuple[int, int]  # (GPU's place in the arrays, XID)


def advance(
    state: State, faults: Impairment, has_link: Floats, seconds: float, rng: np.random.Generator
) -> list[Incident]:
    """One step of `seconds`; changes `state`. Returns the XIDs that came, in order; the last one of a GPU counts."""
    incidents = [
        *_bus(state, faults, seconds),
        *_memory(state, faults, seconds, rng),
        *_links(state, faults, has_link, seconds, rng),
    ]
    state.pcie_replays += rng.poisson(faults.replays_per_second * seconds)
    for row, code in incidents:
        state.xid[row] = code
    return incidents


def _bus(state: State, faults: Impairment, seconds: float) -> list[Incident]:
    now = faults.lost & (state.gone_seconds <= seconds)
    return [(int(row), 79) for row in np.flatnonzero(now)]


def _memory(state: State, faults: Impairment, seconds: float, rng: np.random.Generator) -> list[Incident]:
    single = rng.poisson(faults.ecc_per_second * seconds)
    state.ecc_corrected += single
    state.ecc_corrected_lifetime += single
    remapped = rng.binomial(single, _REMAPPED_SHARE) + rng.poisson(faults.remaps_per_second * seconds)
    incidents: list[Incident] = []
    for row in np.flatnonzero(remapped):
        state.remapped_correctable[row] += remapped[row]
        full = faults.remap_fails[row] and state.remapped_correctable[row] >= _ROWS_PER_BANK
        state.remap_failure[row] = max(state.remap_failure[row], float(full))
        state.remap_pending[row] = 1.0
        incidents += [(int(row), 63)] + [(int(row), 64)] * bool(full)

    brings = faults.double_bits > 0
    first = brings & (state.double_bit == 0)
    double = np.where(first, 1, rng.poisson(faults.double_bits * seconds))
    state.double_bit = np.where(brings, 1.0, 0.0)
    state.ecc_uncorrected += double
    state.ecc_uncorrected_lifetime += double
    state.remapped_uncorrectable += double
    for row in np.flatnonzero(double):
        state.remap_pending[row] = 1.0
        codes = (48, 63, 95) if faults.uncontained[row] else (63, 94)
        incidents += [(int(row), code) for code in codes]
    return incidents


def _links(
    state: State, faults: Impairment, has_link: Floats, seconds: float, rng: np.random.Generator
) -> list[Incident]:
    strength = np.where(has_link > 0, faults.flapping, 0.0)
    if not strength.any() and not state.link_down_seconds.any():
        return []
    count = len(strength)
    state.link_down_seconds = np.maximum(state.link_down_seconds - seconds, 0.0) * (strength > 0)
    falls = (state.link_down_seconds == 0) & (rng.random(count) < 1 - np.exp(-strength * seconds / _FLAP_SECONDS))
    state.link_down_seconds = np.where(falls, rng.uniform(*_DOWN_SECONDS, count), state.link_down_seconds)
    down = np.minimum(state.link_down_seconds, seconds) * strength
    state.link_crc_errors += rng.poisson(200 * down)
    state.link_replays += rng.poisson(20 * down)
    state.link_recoveries += falls
    return [(int(row), 74) for row in np.flatnonzero(falls)]


def leak(cards: Cards, state: State, faults: Impairment, demand: Demand, seconds: float) -> Flags:
    """One step of leaking; returns where memory has run out. A process that ends gives back what it leaked."""
    more = state.leaked_mebibytes + faults.leak_mebibytes_per_second * seconds
    busy = (demand.slot > 0) & (faults.leak_mebibytes_per_second > 0)
    state.leaked_mebibytes = np.where(busy, more, 0.0)
    full: Flags = busy & (used_mebibytes(cards, state, demand) >= cards.memory_mebibytes - cards.reserved_mebibytes)
    return full


def repaired(state: State, rows: Integers) -> None:
    """A new part, or the old one after a reset: nothing pending, no XID on record."""
    for field in (state.xid, state.remap_pending, state.remap_failure, state.double_bit, state.link_down_seconds):
        field[rows] = 0.0


def restarted(state: State, rows: Integers) -> None:
    """The driver was loaded anew: volatile counters begin again at zero, lifetime ones and remapped rows stay."""
    repaired(state, rows)
    for counter in (
        state.energy_millijoules,
        state.power_violation_nanoseconds,
        state.thermal_violation_nanoseconds,
        state.ecc_corrected,
        state.ecc_uncorrected,
        state.pcie_replays,
        state.link_crc_errors,
        state.link_replays,
        state.link_recoveries,
    ):
        counter[rows] = 0.0
