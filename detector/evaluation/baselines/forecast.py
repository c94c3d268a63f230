"""Neural forecasters: a convolution over the last steps, and GDN's attention between an entity's signals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from detector.evaluation.baselines.series import Series, errors_scaled
from detector.telemetry import Floats

_BATCH = 256
_UPDATES = 600
_RATE = 2e-3


class Forecaster:
    """A network that forecasts the next step from the last `width`; its errors, scaled, are the score."""

    def __init__(self, width: int, network: Callable[[int], nn.Module], seed: int, worst_signal: bool) -> None:
        self._width = width
        self._make = network
        self._seed = seed
        self._worst_signal = worst_signal

    def fit(self, series: Series) -> None:
        torch.manual_seed(self._seed)
        random = np.random.default_rng(self._seed)
        self._networks = [self._train(series.training(pool), random) for pool in series.pools]

    def _train(self, values: Floats, random: np.random.Generator) -> nn.Module:
        gpus, steps, signals = values.shape
        network = self._make(signals)
        optimiser = torch.optim.Adam(network.parameters(), _RATE)
        held = torch.from_numpy(values)
        back = torch.arange(-self._width, 0)
        for _ in range(_UPDATES):
            rows = torch.from_numpy(random.integers(0, gpus, _BATCH))
            at = torch.from_numpy(random.integers(self._width, steps, _BATCH))
            loss = nn.functional.mse_loss(network(held[rows[:, None], at[:, None] + back]), held[rows, at])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return network.eval()

    def score(self, series: Series) -> Floats:
        errors = np.zeros_like(series.values)
        with torch.inference_mode():
            for pool, network in zip(series.pools, self._networks, strict=True):
                for gpu in pool:
                    values = torch.from_numpy(series.values[gpu])
                    windows = values.unfold(0, self._width, 1)[:-1].transpose(1, 2)
                    forecast = torch.cat([network(part) for part in torch.split(windows, 4096)])
                    errors[gpu, self._width :] = (values[self._width :] - forecast).numpy()
        scaled = errors_scaled(errors, series)
        return scaled.max(axis=2, keepdims=True) if self._worst_signal else scaled


def cnn(seed: int) -> Forecaster:
    """Munir et al., "DeepAnT", IEEE Access 2019: two convolutions over the last 16 steps."""
    return Forecaster(16, _Convolution, seed, worst_signal=False)


def gdn(seed: int) -> Forecaster:
    """Deng, Hooi, "Graph neural network-based anomaly detection in multivariate time series", AAAI 2021."""
    return Forecaster(5, _DeviationNetwork, seed, worst_signal=True)


class _Convolution(nn.Module):
    def __init__(self, signals: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(signals, 32, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
            nn.Flatten(), nn.Linear(32 * 4, 64), nn.ReLU(), nn.Linear(64, signals),
        )  # fmt: skip

    def forward(self, windows: Tensor) -> Tensor:
        """[batch, 16, signals] → [batch, signals]."""
        forecast: Tensor = self.layers(windows.transpose(1, 2))
        return forecast


class _DeviationNetwork(nn.Module):
    """Each signal attends to the signals whose learned embeddings are closest to its own."""

    _SIZE = 16
    _NEIGHBOURS = 8

    def __init__(self, signals: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(signals, self._SIZE) / self._SIZE**0.5)
        self.project = nn.Linear(5, self._SIZE, bias=False)
        self.attend = nn.Linear(4 * self._SIZE, 1)
        self.out = nn.Sequential(nn.Linear(self._SIZE, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """[batch, 5, signals] → [batch, signals]."""
        batch, _, signals = windows.shape
        unit = nn.functional.normalize(self.embedding.detach(), dim=1)
        nearest = (unit @ unit.T).topk(min(self._NEIGHBOURS, signals), dim=1).indices
        seen = self.project(windows.transpose(1, 2))
        tagged = torch.cat([self.embedding.expand(batch, -1, -1), seen], dim=2)
        neighbours = tagged[:, nearest]
        pairs = torch.cat([tagged.unsqueeze(2).expand_as(neighbours), neighbours], dim=3)
        weight = nn.functional.leaky_relu(self.attend(pairs), 0.2).softmax(dim=2)
        heard = (weight * seen[:, nearest]).sum(dim=2).relu()
        forecast: Tensor = self.out(heard * self.embedding).squeeze(2)
        return forecast
