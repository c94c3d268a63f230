import numpy as np

from detector import topology
from detector.contexts import SETTLING, ContextScale, contexts, unsettled
from detector.telemetry import IDLE

from .fleets import gpus

FLEET = gpus(nodes=1)


def test_a_gpu_is_settling_after_its_job_changed_and_alone_without_ranks() -> None:
    steps = SETTLING + 6
    job = np.full((8, steps), IDLE, np.int32)
    job[:4, 3:] = 0
    job[4, 3:] = 1
    nothing = np.full(8, np.nan, np.float32)
    topologies = [topology.build(FLEET, job[:, step], nothing, nothing) for step in range(steps)]
    found = contexts(topology.states(job, np.zeros((8, steps), np.float32)), topologies)
    idle, ranks, alone = 0, 2, 4
    assert found[:, 2].tolist() == [idle] * 8
    assert found[:, 3].tolist() == [ranks + 1] * 4 + [alone + 1] + [idle] * 3
    assert found[:, -1].tolist() == [ranks] * 4 + [alone] + [idle] * 3
    assert unsettled(found[:, -1]).tolist() == [False] * 4 + [True] + [False] * 3


def test_residuals_are_measured_by_what_is_usual_in_their_context() -> None:
    random = np.random.default_rng(0)
    context = np.repeat([[0], [4]], 2000, axis=1)
    residuals = (random.standard_normal((1, 2, 2000)) * np.array([[2], [20]])).astype(np.float32)
    scaled = ContextScale.fit(residuals, context).apply(residuals, context)
    np.testing.assert_allclose(np.quantile(np.abs(scaled[0]), 0.95, axis=-1), 1 / 1.5, rtol=0.05)
