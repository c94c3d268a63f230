"""Training that can be killed at any moment and goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
import torch

from detector.telemetry import Telemetry

EVERY = 50  # iterations from one checkpoint to the next

log = structlog.get_logger()


class Stateful(Protocol):
    """A network, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, object]: ...

    def load_state_dict(self, state: dict[str, object], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training run stands, in a file. `run` identifies data and settings: another run's file is passed over."""

    path: Path | None
    run: str

    def resume(self, parts: Sequence[Stateful], random: np.random.Generator) -> int:
        """Bring everything to where the file says; the number of iterations done, 0 without a usable file."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            saved = torch.load(self.path, weights_only=True)
        except Exception as error:  # torch names no common class for the ways in which a file can be damaged
            log.warning("checkpoint not readable, training starts anew", file=str(self.path), error=str(error))
            return 0
        if saved["run"] != self.run:
            return 0
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        torch.set_rng_state(saved["torch"])
        random.bit_generator.state = json.loads(saved["numpy"])
        return int(saved["iteration"])

    def keep(self, iteration: int, parts: Sequence[Stateful], random: np.random.Generator) -> None:
        """Write down where the run stands, if it is time to."""
        if self.path is None or iteration % EVERY:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        content = {
            "run": self.run,
            "iteration": iteration,
            "parts": [part.state_dict() for part in parts],
            "torch": torch.get_rng_state(),
            "numpy": json.dumps(random.bit_generator.state),
        }
        torch.save(content, draft)
        os.replace(draft, self.path)

    def done(self) -> None:
        if self.path is not None:
            with suppress(FileNotFoundError):
                self.path.unlink()


def fingerprint(recordings: Sequence[Telemetry], *settings: object) -> str:
    """The same data and settings give the same text."""
    digest = hashlib.sha256(repr(settings).encode())
    for telemetry in recordings:
        digest.update(repr((telemetry.signals, telemetry.gpus, telemetry.jobs)).encode())
        for array in (telemetry.timestamps, telemetry.values, telemetry.job):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
