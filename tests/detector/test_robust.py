"""Whatever happens to Prometheus, to the telemetry or to the clock: the detector keeps running, says so, shows
nothing stale and nothing healthy-looking, and recovers by itself."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector import registry, training
from detector.promql import Prometheus
from detector.training import Settings

from .conftest import free_port
from .fleets import telemetry
from .world import NODES, PER_NODE, STEP, Watch, World, scores, world

ALL = len(NODES) * PER_NODE
FAILED = "stethos_detector_ticks_total failed"
COVERAGE = "stethos_detector_input_coverage_ratio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world") / "prometheus") as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a fleet that reports the same signals, in a folder of models."""
    folder = tmp_path_factory.mktemp("trained")
    state, settings = ("utilization_ratio", "power_watts"), Settings(0.1, 30, 0)
    judge, card = training.train([telemetry(300, nodes=1)], state, settings, lambda *_: None)
    registry.write(folder / "models", judge, card)
    return folder


@pytest.fixture
def watch(request: pytest.FixtureRequest, place: World, tmp_path: Path) -> Iterator[Watch]:
    """A detector on a fleet that is whole and quiet, with the peers alone or, where a test asks so, with a model."""
    basis = getattr(request, "param", "peers")
    place.exporter.reset()
    with Prometheus(place.url, timeout=1.0) as client:
        watching = Watch(client, request.getfixturevalue("models") if basis == "model" else tmp_path)
        page = watching.until("a quiet fleet", whole)
        assert page[f"stethos_detector_gpus {basis}"] == ALL
        yield watching


def whole(page: dict[str, float]) -> bool:
    found = scores(page)
    return len(found) == ALL and max(found.values()) < 1 and page[COVERAGE] == 1


def test_prometheus_comes_after_the_detector(place: World, tmp_path: Path) -> None:
    with world(tmp_path / "late") as late, Prometheus(late.url, timeout=1.0) as client:
        watching = Watch(client, tmp_path)
        page = watching.look()
        assert page[FAILED] == 1
        assert "stethos_detector_last_success_timestamp_seconds" not in page
        assert "does not answer" in str(watching.service.unready())
        late.start()
        watching.until("scores", whole)
        assert watching.service.unready() is None


@pytest.mark.parametrize("watch", ["peers", "model"], indirect=True)
def test_prometheus_is_restarted(place: World, watch: Watch) -> None:
    place.stop()
    page = watch.until("no scores", lambda page: not scores(page), seconds=3 * STEP + 3)
    assert page[FAILED] >= 1
    assert COVERAGE not in page
    assert "does not answer" in str(watch.service.unready())
    place.start()
    watch.until("scores again", whole)


def test_prometheus_hangs(place: World, watch: Watch) -> None:
    with place.stalled():
        begin = time.monotonic()
        page = watch.until("no scores", lambda page: not scores(page), seconds=10)
        assert time.monotonic() - begin < 10
        assert page[FAILED] >= 1
    watch.until("scores again", whole)


def test_a_partial_answer_is_used_and_told(tmp_path: Path) -> None:
    dead = [{"url": f"http://127.0.0.1:{free_port()}/read", "read_recent": True, "remote_timeout": "200ms"}]
    with world(tmp_path / "partial", {"remote_read": dead}) as partial, Prometheus(partial.url, timeout=5.0) as client:
        partial.start()
        page = Watch(client, tmp_path).until("scores", whole)
    assert page["stethos_detector_query_warnings_total"] >= 1


def test_a_signal_vanishes(place: World, watch: Watch) -> None:
    for readings in place.exporter.readings.values():
        del readings["gpu:power:watts"]
    page = watch.until("one signal of five less", lambda page: page.get(COVERAGE) == pytest.approx(0.8))
    assert len(scores(page)) == ALL
    assert max(scores(page).values()) < 1


@pytest.mark.parametrize(
    ("watch", "wild"),
    [("peers", "NaN"), ("peers", "+Inf"), ("peers", "-Inf"), ("peers", "1e300"), ("model", "+Inf"), ("model", "NaN")],
    indirect=["watch"],
)
def test_wild_readings_of_a_gpu_are_no_readings(place: World, watch: Watch, wild: str) -> None:
    place.exporter.readings["node-02", "1"] = dict.fromkeys(place.exporter.readings["node-02", "1"], wild)
    page = watch.until("no score that looks healthy", lambda page: scores(page).get("node-02/1", 1) >= 1)
    others = {gpu: score for gpu, score in scores(page).items() if gpu != "node-02/1"}
    assert len(others) == ALL - 1
    assert max(others.values()) < 1
    place.exporter.reset()
    watch.until("the GPU is back", whole)


def test_duplicate_and_vanished_labels(place: World, watch: Watch) -> None:
    exporter = place.exporter
    exporter.more.append(("node-01", 'gpu:temperature:celsius{gpu="0",uuid="GPU-x",slot="b"} 30'))
    for key in list(exporter.labels):
        exporter.labels[key] = 'model="H100"'
    watch.until("a fleet without uuid and rack", lambda _: watch_labels(watch) <= {"", "GPU-x"})
    page = watch.until("scores", whole)
    assert set(scores(page)) == {f"{node}/{gpu}" for node in NODES for gpu in range(PER_NODE)}


def watch_labels(watch: Watch) -> set[str]:
    snapshot = watch.service.snapshot
    return {gpu.uuid for gpu in snapshot.verdicts.gpus} if snapshot else set()


def test_a_counter_reset_is_no_error(place: World, watch: Watch) -> None:
    for readings in place.exporter.readings.values():
        readings["gpu:ecc_corrected:total"] = "0"
    end = time.monotonic() + 6 * STEP
    while time.monotonic() < end:
        assert max(scores(watch.look()).values(), default=0) < 1
        time.sleep(STEP / 2)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_the_clock_jumps(watch: Watch, jump: float) -> None:
    watch.ahead = jump
    assert scores(watch.page()) == {}
    page = watch.look()
    assert scores(page) == {}
    assert page.get(COVERAGE, 0) == 0
    watch.ahead = 0.0
    watch.until("scores again", whole)


def test_the_fleet_vanishes(place: World, watch: Watch) -> None:
    place.exporter.down = set(NODES)
    page = watch.until("nothing to judge", lambda page: not scores(page) and page.get(COVERAGE) == 0)
    assert page["stethos_detector_gpus peers"] == 0
    place.exporter.down = set()
    watch.until("the fleet is back", whole)


def test_exporters_answer_with_nothing(place: World, watch: Watch) -> None:
    place.exporter.readings.clear()
    # For two steps a GPU may be late; from the third on it is missing.
    page = watch.until("all missing", lambda page: len(found := scores(page)) == ALL and min(found.values()) >= 1)
    assert page[COVERAGE] == 0
    assert page["stethos_anomaly_cause missing node-01/0"] == 1
    place.exporter.reset()
    watch.until("the GPUs are back", whole)


@pytest.mark.slow
@pytest.mark.parametrize("basis", ["peers", "model"])
def test_the_fleet_doubles(request: pytest.FixtureRequest, tmp_path: Path, basis: str) -> None:
    # In a world of its own: GPUs that are gone again would be called missing in the next test.
    known = request.getfixturevalue("models") if basis == "model" else tmp_path
    with world(tmp_path / "growing") as growing, Prometheus(growing.url, timeout=5.0) as client:
        growing.start()
        watching = Watch(client, known)
        watching.until("a quiet fleet", whole)
        for node in NODES:
            growing.exporter.add(node, 2 * PER_NODE)
        pages: list[tuple[float, int, dict[str, float]]] = []

        def doubled(page: dict[str, float]) -> bool:
            snapshot = watching.service.snapshot
            if snapshot and scores(page):
                pages.append((snapshot.at, len(snapshot.verdicts.gpus), page))
            return len(scores(page)) == 2 * ALL and len(pages) > 8

        watching.until("twice the GPUs", doubled)
    for at, known, _ in pages:
        for later, _, page in pages:
            if later >= at + 4 * STEP:
                assert len(scores(page)) >= known, "a GPU is judged as soon as there are a few steps of it"
    assert all(page[f"stethos_detector_gpus {basis}"] == len(scores(page)) >= ALL for _, _, page in pages)
    assert all(max(scores(page).values()) < 1 for _, _, page in pages), "nobody alarms because others came"
