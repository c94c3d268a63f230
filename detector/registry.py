"""Trained models on disk: one folder a version, weights as safetensors beside a JSON card."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from detector.budget import Tail
from detector.contexts import ContextScale
from detector.features import Scaling
from detector.habits import Habits
from detector.model import PeerReconstruction
from detector.offsets import Offsets
from detector.residuals import ModelJudge
from detector.signals import Signal

FORMAT = 6
_WEIGHTS = "model.safetensors"
_CARD = "card.json"
_SCALING = ("centre", "spread", "lowest", "highest", "idle")
_HABITS = ("centre", "spread", "mean", "patterns", "aside", "unit")
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}$")


class RegistryError(Exception):
    """A model version cannot be used; the message names the folder and the reason."""


class Card(BaseModel):
    """What a version was made of, and how well it does."""

    model_config = ConfigDict(extra="forbid")

    format: int
    version: str
    weights_sha256: str
    trained_at: datetime
    data_start: datetime
    data_end: datetime
    gpus: int
    step_seconds: float
    seed: int
    budget_per_1000_gpu_hours: float
    held_back_residual: float
    signals: tuple[Signal, ...]
    models: tuple[str, ...]
    kinds: tuple[str, ...] = ("job", "node", "rack", "load")  # of peers that the network knows
    state: tuple[str, str]
    offsets_of: tuple[tuple[str, str], ...] = ()  # node and gpu of those whose offsets it has
    software_of: tuple[str, ...] = ()  # what ran on those then
    group_units: dict[str, float] = {}  # see groups.py
    habits_of: tuple[tuple[str, str], ...] = ()  # the same of those whose habits it has
    parent: str | None = None  # the version whose network this one has, recalibrated; that one was trained
    rebuild_error: float | None = None  # on held-back data, and the same of the version then in office
    rebuild_error_before: float | None = None


def write(folder: Path, judge: ModelJudge, card: Card) -> Path:
    """Keep a version. It appears under its name all at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = pack(judge)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        made = Path(temporary) / judge.version
        made.mkdir()
        (made / _WEIGHTS).write_bytes(weights)
        (made / _CARD).write_text(card.model_dump_json(indent=2) + "\n")
        os.replace(made, folder / judge.version)
    return folder / judge.version


def card_of(version: Path) -> Card:
    """A version's card alone. Raises RegistryError when it is damaged or of another format."""
    try:
        card = Card.model_validate_json((version / _CARD).read_bytes())
    except OSError as error:
        raise RegistryError(f"model {version}: cannot read {error.filename}: {error.strerror}") from error
    except ValidationError as error:
        raise RegistryError(f"model {version}: its card is not valid: {error.errors()[0]['msg']}") from error
    if card.format != FORMAT:
        raise RegistryError(f"model {version}: its format is {card.format}, this detector reads {FORMAT}")
    return card


def read(version: Path) -> tuple[ModelJudge, Card]:
    """Load a version. Raises RegistryError when it is damaged or of another format."""
    card = card_of(version)
    try:
        weights = (version / _WEIGHTS).read_bytes()
    except OSError as error:
        raise RegistryError(f"model {version}: cannot read {error.filename}: {error.strerror}") from error
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise RegistryError(f"model {version}: the weights do not match the card's checksum")
    try:
        return _unpack(weights, card), card
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RegistryError(f"model {version}: weights and card do not fit: {error}") from error


def versions(folder: Path) -> list[Path]:
    """The versions in a folder, newest first. Names start with the time of training, so names sort by age."""
    if not folder.is_dir():
        return []
    return sorted((place for place in folder.iterdir() if _NAME.match(place.name) and place.is_dir()), reverse=True)


def move(version: Path, folder: Path) -> None:
    """Bring a version to another folder, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(version, folder / version.name)


def reject(version: Path, folder: Path, reason: str) -> None:
    """Put a version aside with the reason why it does not serve."""
    (version / "reason.txt").write_text(reason + "\n")
    move(version, folder)


def prune(folder: Path, keep: int) -> None:
    """Only the newest `keep` versions stay."""
    for version in versions(folder)[keep:]:
        shutil.rmtree(version)


def name(weights: bytes, trained_at: datetime) -> str:
    """A version's name: when it was trained, and the beginning of its weights' checksum."""
    return f"{trained_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(weights).hexdigest()[:8]}"


def made_at(name: str) -> float:
    """When the version of that name was trained or recalibrated, Unix seconds."""
    return datetime.strptime(name.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def pack(judge: ModelJudge) -> bytes:
    tensors = {f"network.{key}": value for key, value in judge.network.state_dict().items()}
    tensors |= {f"scaling.{name}": torch.from_numpy(getattr(judge.scaling, name)) for name in _SCALING}
    for name, scale, tail in (
        ("own", judge.own_scale, judge.own_tail),
        ("shared", judge.shared_scale, judge.shared_tail),
    ):
        tensors[f"{name}.scale"] = torch.from_numpy(scale.values)
        tensors[f"{name}.tail"] = torch.from_numpy(tail.values)
    tensors["change_units"] = torch.from_numpy(judge.change_units)
    tensors["offsets.values"] = torch.from_numpy(judge.offsets.values)
    tensors["offsets.units"] = torch.from_numpy(judge.offsets.units)
    if judge.habits is not None:
        tensors |= {f"habits.{name}": torch.from_numpy(getattr(judge.habits, name)) for name in _HABITS}
    return save({key: value.contiguous() for key, value in tensors.items()})


def _unpack(weights: bytes, card: Card) -> ModelJudge:
    tensors = load(weights)
    prefix = "network."
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    network = PeerReconstruction(state["masks"], state["by_effort"], len(card.models), card.kinds)
    network.load_state_dict(state)
    known = len(card.models) + 1, len(card.signals)
    if tensors["scaling.centre"].shape != known:
        raise ValueError(f"the card names {len(card.signals)} signals of {len(card.models)} GPU models")
    if len(tensors["offsets.values"]) != len(card.offsets_of):
        raise ValueError(f"the card names {len(card.offsets_of)} GPUs with offsets")
    own, shared = Tail(tensors["own.tail"].numpy()), Tail(tensors["shared.tail"].numpy())
    return ModelJudge(
        card.version,
        card.signals,
        card.models,
        card.state,
        Scaling(*(tensors[f"scaling.{name}"].numpy() for name in _SCALING)),
        network,
        ContextScale(tensors["own.scale"].numpy()),
        ContextScale(tensors["shared.scale"].numpy()),
        own.thresholds(card.budget_per_1000_gpu_hours),
        shared.thresholds(card.budget_per_1000_gpu_hours),
        own,
        shared,
        tensors["change_units"].numpy(),
        Offsets(card.offsets_of, tensors["offsets.values"].numpy(), tensors["offsets.units"].numpy(), card.software_of),
        Habits(card.habits_of, *(tensors[f"habits.{name}"].numpy() for name in _HABITS)) if card.habits_of else None,
        card.group_units,
    )
