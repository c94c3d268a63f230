"""The judge for a card: a model's residuals as ModelJudge has them, computed where the telemetry's copy lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor

from detector.calibration import Thresholds
from detector.card import features, residuals
from detector.card.device import current, placed, waited
from detector.card.mirror import Mirror
from detector.card.peers import Doing, build, doing, neighbours, nodes
from detector.card.rebuilding import channels, rebuild, scaled
from detector.card.residuals import Circumstances, Kinds
from detector.card.standing import Standing
from detector.residuals import Judge, ModelJudge, Residuals, aligned
from detector.signals import Signal
from detector.stages import stage
from detector.telemetry import Gpu, Telemetry, clean

_BATCH_NODES = 100_000  # GPUs times steps at once: some 20 kB each
_NAN = float("nan")


def on(device: torch.device, model: ModelJudge) -> Judge:
    """The model's judge for a device; on the processor that is the model itself, which is faster there."""
    return model if device.type == "cpu" else CardJudge(model, device)


class CardJudge:
    """A trained model that judges on a device; what it says is what the model says by itself.

    Habits, which only signals have that nobody described, are computed by the processor. paced: let every stage end
    before the next begins, so that the stages' times are told apart.
    """

    def __init__(self, model: ModelJudge, device: torch.device, paced: bool = False) -> None:
        self.basis = model.basis
        self.signals: tuple[Signal, ...] = model.signals
        self.own: Thresholds = model.own
        self.shared: Thresholds = model.shared
        self.group_units = model.group_units
        self.change_units = model.change_units
        self._model = model
        self._device = device
        self._paced = paced
        self._network = deepcopy(model.network).to(device).eval()
        self._kinds = Kinds.of(model.signals, device)
        self._scales = [placed(scale.values.T, device) for scale in (model.own_scale, model.shared_scale)]
        self._mirror = Mirror(model.signals, device)
        self._gpus: tuple[Gpu, ...] = ()
        self._standing: Standing | None = None

    @property
    def uploaded(self) -> int:
        """Bytes that the last call brought to the device."""
        return self._mirror.uploaded

    def residuals(self, telemetry: Telemetry, first: int) -> Residuals:
        """See ModelJudge.residuals."""
        with torch.inference_mode(), current(self._device):
            with self._stage("upload"):
                standing = self._known(telemetry)
                values, job = self._mirror.of(telemetry)
            with self._stage("features"):
                readings = features.clean(self.signals, values)
                unchanged = features.unchanged(readings, first, self.signals).transpose(1, 2)
            with self._stage("graph"):
                named = telemetry.edges is None or "job" in telemetry.edges
                now = doing(self.signals, readings, job, self._model.state, first, named, standing)
            habits = self._habits(telemetry, first)
            steps, gpus = now.state.shape
            most = max(1, _BATCH_NODES // max(1, gpus))
            found = []
            for begin in range(0, steps, most):
                chosen = slice(begin, min(begin + most, steps))
                rows = habits[:, chosen], unchanged[:, chosen]
                part = readings[..., : first + chosen.stop]
                found.append(self._judged(part, now.of(chosen), rows, telemetry, standing))
            with self._stage("download"):
                own, shared = (torch.cat(each, dim=1).transpose(1, 2).cpu() for each in zip(*found, strict=True))
                return Residuals(own.contiguous().numpy(), shared.contiguous().numpy())

    def _judged(
        self, readings: Tensor, doings: Doing, rows: tuple[Tensor, Tensor], telemetry: Telemetry, standing: Standing
    ) -> tuple[Tensor, Tensor]:
        """Own and shared residuals of the newest steps, [rows, steps, gpus] each. rows: habits, unchanged readings."""
        kinds, (habits, unchanged) = self._kinds, rows
        with self._stage("graph"):
            told, heard = build(standing, doings, len(telemetry.jobs), telemetry.edges)
            now = Circumstances(doings.context(told["job"]), doings.since)
            by_node = nodes(standing, len(doings.state))
            beside = neighbours(standing, doings, len(telemetry.jobs))
        with self._stage("features"):
            window, past = scaled(readings, readings.shape[2] - len(doings.state), standing)
            actual = window[..., past:].transpose(1, 2).contiguous()
            own_channels = channels(window, past, standing)
            trend = self._trend(window, past) / standing.floor
        with self._stage("model"):
            together, single = rebuild(self._network, own_channels, actual, heard, now.context, standing)
        with self._stage("model"):
            elsewhere = residuals.against_likes(actual, standing, told, now)
            plain = residuals.apart_from_neighbours(elsewhere, kinds, beside, standing.single)
            own = residuals.against_job(residuals.judgeable(together, trend, kinds, now), told)
            own = residuals.by_itself(own, single, kinds, now)
            own = torch.where(kinds.heat, own, residuals.within(own, plain, now))
            own = residuals.bounded_by_ranks(own, plain, elsewhere, kinds, now)
            untold = kinds.lags & now.lagging
            untold = untold | (residuals.awaiting(told["job"], beside, now) & ~kinds.heat & ~kinds.steady)
            own, plain = own.masked_fill(untold, _NAN), plain.masked_fill(untold, _NAN)
            apart, common = residuals.apart_from_node(torch.cat([own, plain]), kinds, now, by_node)
            single = single.masked_fill(residuals.patchy(actual, own_channels), _NAN)
            shared = residuals.common_to_job(single, kinds, now)
            count = len(self.signals)
            heat = residuals.hot_within(apart[:count], apart[count:], kinds, now)
            apart = residuals.not_alone(torch.cat([heat, apart[count:]]), kinds, beside)
            still = residuals.standing_still(unchanged, kinds, standing.node)
            own = torch.cat([apart, habits, unchanged - still.nan_to_num(0.0)])
            common = common[:count].masked_fill(kinds.job & now.lately, _NAN)
            shared = torch.cat([shared, common, still])
            own = residuals.less(own, [each[: 2 * count] for each in standing.usual], now)
            wanders = len(standing.unit)
            own = torch.cat([own[:wanders] / standing.unit, own[wanders:]])
            shared = residuals.less(shared, [each[2 * count :] for each in standing.usual], now)
            own_scale, shared_scale = self._scales
            return (
                residuals.in_units(own, own_scale, now.context, kinds),
                residuals.in_units(shared, shared_scale, now.context, kinds),
            )

    def _trend(self, window: Tensor, past: int) -> Tensor:
        """Where job-made signals are going, [signals, steps, gpus]; NaN for the others."""
        made = self._kinds.job.flatten()
        trend = torch.full((len(made), window.shape[2] - past, window.shape[1]), _NAN, device=self._device)
        trend[made] = features.trend(window[made], past).transpose(1, 2)
        return trend

    def _known(self, telemetry: Telemetry) -> Standing:
        if self._standing is None or self._gpus is not telemetry.gpus:
            self._standing = Standing.of(telemetry.gpus, self._model, self._device)
            if self._gpus != telemetry.gpus:
                self._mirror = Mirror(self.signals, self._device)
            self._gpus = telemetry.gpus
        return self._standing

    def _habits(self, telemetry: Telemetry, first: int) -> Tensor:
        """[signals, steps, gpus], or no rows where there are none."""
        habits = self._model.habits
        if habits is None:
            return torch.zeros((0, telemetry.values.shape[2] - first, len(telemetry.gpus)), device=self._device)
        ordered = aligned(telemetry, self.signals)
        readings = clean(ordered.signals, ordered.values)
        return placed(habits.residuals(ordered, readings, first), self._device).transpose(1, 2)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with stage(name):
            yield
            if self._paced:
                waited(self._device)
