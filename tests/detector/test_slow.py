"""A Prometheus that is slow, or breaks off in the middle of an answer, is as good as none, and so is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.promql import Prometheus, PrometheusError

from .proxy import Mode, Proxy, proxy
from .test_robust import COVERAGE, FAILED, whole
from .world import Watch, World, scores, world


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world") / "prometheus") as made:
        made.start()
        yield made


@pytest.fixture
def between(place: World) -> Iterator[Proxy]:
    with proxy(place.port) as made:
        yield made


@pytest.mark.parametrize("mode", ["late", "stall", "cut"])
def test_scores_go_and_come_back_by_themselves(between: Proxy, tmp_path: Path, mode: Mode) -> None:
    with Prometheus(between.url, timeout=1.0) as client:
        watch = Watch(client, tmp_path)
        watch.until("a quiet fleet", whole)
        failed = watch.page()[FAILED]
        between.mode = mode
        page = watch.until("no scores", lambda page: not scores(page))
        assert page[FAILED] > failed
        assert COVERAGE not in page
        assert "does not answer" in str(watch.service.unready())
        between.mode = "through"
        watch.until("scores again", whole)
        assert watch.service.unready() is None


def test_an_answer_that_drips_ends_with_the_timeout(place: World, between: Proxy) -> None:
    """Every piece comes soon enough; the whole would take half a minute."""
    with Prometheus(between.url, timeout=30.0) as patient, Prometheus(between.url, timeout=2.0) as client:
        assert set(patient.range("vector(1)", 5, 200, 5).values.tolist()) == {1.0}
        between.mode = "drip"
        with pytest.raises(PrometheusError, match="does not answer"):
            client.range("vector(1)", 5, 200, 5)
