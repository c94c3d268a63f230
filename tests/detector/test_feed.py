"""What Prometheus pushes: read as it was written, and the same in the end as if it had been asked."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from detector import ingest, signals
from detector.feed import Feed
from detector.fleet import Fleet
from detector.matrix import Matrix
from detector.promql import Prometheus
from detector.remote_write import PushError, decode, labels_of
from detector.service import Service, application

from .world import NODES, PER_NODE, STEP, Watch, World, scores, world

Series = tuple[dict[str, str], list[tuple[int, float]]]
NAME = "gpu:power:watts"
FED = "stethos_detector_fed_queries"
ENDED = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def write_request(series: list[Series]) -> bytes:
    """As the protocol has it; what is zero is left out."""
    content = b""
    for labels, samples in series:
        text = b"".join(field(1, field(1, n.encode()) + field(2, v.encode())) for n, v in labels.items())
        for at, value in samples:
            told = varint(1 << 3 | 1) + struct.pack("<d", value) if value else b""
            text += field(2, told + (varint(2 << 3) + varint(at) if at else b""))
        content += field(1, text)
    return content + field(3, b"metadata")


def packed(content: bytes) -> bytes:
    compressed: bytes = pa.Codec("snappy").compress(content, asbytes=True)
    return compressed


def message(series: list[Series]) -> bytes:
    return packed(write_request(series))


VALUES = st.floats(allow_nan=False) | st.just(float("nan"))
SERIES = st.lists(
    st.tuples(
        st.dictionaries(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=200), max_size=3),
        st.lists(st.tuples(st.integers(0, 2**42), VALUES), max_size=3),
    ),
    max_size=4,
)


@given(SERIES)
def test_a_push_is_read_as_it_was_written(series: list[Series]) -> None:
    found = decode(message(series))
    assert [labels_of(each) for each in found.labels] == [labels for labels, _ in series]
    flat = [(row, at, value) for row, (_, samples) in enumerate(series) for at, value in samples]
    np.testing.assert_array_equal(found.series, [row for row, _, _ in flat])
    np.testing.assert_array_equal(found.timestamps, [at for _, at, _ in flat])
    np.testing.assert_array_equal(found.values, [value for _, _, value in flat])


@given(st.binary(max_size=60))
def test_anything_else_is_refused_or_holds_nothing_but_whole_series(content: bytes) -> None:
    for body in (content, packed(content)):
        try:
            found = decode(body)
        except PushError:
            continue
        assert len(found.series) == len(found.values) == len(found.timestamps)


def test_a_push_that_is_cut_off_is_refused_and_changes_nothing() -> None:
    feed = Feed([NAME], 5.0)
    series: list[Series] = [({"__name__": NAME}, [(1, 2.0)])]
    with pytest.raises(PushError, match="is not a remote write of version 1"):
        feed.take(packed(write_request(series)[:20]))
    with pytest.raises(PushError, match="not UTF-8"):
        labels_of(field(1, field(1, b"job") + field(2, b"\xff")))
    with pytest.raises(PushError, match="is not packed with snappy"):
        feed.take(message(series)[:-9])
    assert feed.range(NAME, 0, 0, 5) is None


@contextmanager
def fed(samples: list[tuple[float, float]], lookback: float = 20.0) -> Iterator[tuple[Feed, list[float]]]:
    """A feed that has got these samples of one series, one a message, and its clock."""
    clock = [samples[0][0]]
    feed = Feed([NAME], 5.0, lookback, lambda: clock[0])
    for at, value in samples:
        clock[0] = at
        feed.take(message([({"__name__": NAME, "gpu": "0"}, [(round(1000 * at), value)])]))
    yield feed, clock


def value_at(samples: list[tuple[float, float]], at: float, lookback: float) -> float:
    standing = [(time_, value) for time_, value in samples if at - lookback < time_ <= at]
    return standing[-1][1] if standing else float("nan")


@given(st.lists(st.sampled_from([1.0, 4.0, 9.5]), min_size=14, max_size=20), st.randoms(use_true_random=False))
def test_the_newest_sample_stands_for_as_long_as_prometheus_lets_it(gaps: list[float], random: object) -> None:
    times = 1000.0 + np.cumsum(gaps)
    samples = [(float(at), float("nan") if at % 7 < 1 else float(at)) for at in times]
    with fed(samples, lookback=8.0) as (feed, clock):
        start = float(np.ceil(clock[0])) - 10
        found = feed.range(NAME, start, start + 10, 5)
    expected = [value_at(samples, start + step, 8.0) for step in (0, 5, 10)]
    if start - 8.0 < samples[0][0]:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found.values, [value for value in expected if value == value])


def test_after_a_silence_a_delay_or_too_far_back_prometheus_is_to_be_asked() -> None:
    steady = [(1000.0 + 5 * place, 1.0) for place in range(9)]
    with fed(steady) as (feed, clock):
        assert feed.range(NAME, 1030, 1040, 5) is not None
        assert feed.range(NAME, 1015, 1040, 5) is None
        assert feed.range("gpu:other", 1030, 1040, 5) is None
        clock[0] += 11
        assert feed.range(NAME, 1035, 1045, 5) is None
    with fed([*steady, (1060.0, 1.0), (1065.0, 1.0)]) as (feed, _):
        assert feed.range(NAME, 1055, 1065, 5) is None
    with fed(steady) as (feed, clock):
        feed.take(message([({"__name__": NAME, "gpu": "1"}, [(1020_000, 1.0)])]))
        assert feed.range(NAME, 1030, 1040, 5) is None
    with fed([(1000.0 + place, 1.0) for place in range(60)]) as (feed, _):
        assert feed.range(NAME, 1055, 1059, 1) is not None
        assert feed.range(NAME, 1030, 1059, 1) is None  # more than is kept


def test_a_series_that_ended_is_no_longer_told_of() -> None:
    with fed([*((1000.0 + 5 * place, 1.0) for place in range(9)), (1045.0, ENDED)]) as (feed, clock):
        other = {"__name__": NAME, "gpu": "1"}
        feed.take(message([(other, [(1045_000, 2.0)])]))
        found = feed.range(NAME, 1040, 1045, 5)
        assert found is not None
        assert found.values.tolist() == [1.0, 2.0]
        clock[0] = 1050.0
        feed.take(message([(other, [(1050_000, 3.0)])]))
        found = feed.range(NAME, 1045, 1050, 5)
        assert found is not None
        assert found.labels == (other,)
        assert found.values.tolist() == [2.0, 3.0]


class Pushing(NamedTuple):
    """A Prometheus that pushes to a detector which also asks it, and what stops that."""

    place: World
    watch: Watch
    feed: Feed
    client: Prometheus
    stop: Callable[[], None]


@pytest.fixture
def pushing(tmp_path: Path) -> Iterator[Pushing]:
    # Told of a longer step, the feed forgives a slow machine its delays.
    feed = Feed(ingest.names_of(signals.load()), 4 * STEP, lookback=4 * STEP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/write"
        write = {"url": url, "queue_config": {"batch_send_deadline": "200ms"}}
        with (
            world(tmp_path / "world", {"remote_write": [write]}) as place,
            Prometheus(place.url) as client,
        ):
            watch = Watch(client, tmp_path)
            watch.service = Service(Fleet(client, signals.load(), tmp_path / "models", STEP, feed=feed), STEP)
            app = application(watch.service, STEP, None, feed)
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            place.start()
            try:
                yield Pushing(place, watch, feed, client, stop)
            finally:
                stop()


@pytest.mark.slow
def test_what_was_pushed_is_what_prometheus_answers(pushing: Pushing) -> None:
    """Also after a GPU's label changed, a signal ended and a node went down."""
    everyone = len(NODES) * PER_NODE
    pushing.watch.until("answers from what was pushed", lambda page: page[FED] >= 5 and len(scores(page)) == everyone)
    exporter = pushing.place.exporter
    exporter.labels["node-01", "0"] = 'uuid="GPU-exchanged",model="H100",rack="rack-1"'
    del exporter.readings["node-02", "1"][NAME]
    exporter.down = {"node-03"}
    pushing.watch.until("an exchanged GPU", lambda page: len(scores(page)) < everyone)
    deadline, alike = time.monotonic() + 60, 0
    while alike < 3:  # what is pushed may come a moment later
        assert time.monotonic() < deadline
        end = np.floor(time.time()) - 1
        told, asked = pushing.feed.range(NAME, end - 2, end, 1), pushing.client.range(NAME, end - 2, end, 1)
        exchanged = "GPU-exchanged" in {labels["uuid"] for labels in asked.labels}
        alike = alike + 1 if exchanged and told is not None and samples(told) == samples(asked) else 0
        time.sleep(STEP / 2)


@pytest.mark.slow
def test_when_nothing_is_pushed_any_more_prometheus_is_asked(pushing: Pushing) -> None:
    everyone = len(NODES) * PER_NODE
    pushing.watch.until("answers from what was pushed", lambda page: page[FED] >= 5 and len(scores(page)) == everyone)
    pushing.stop()
    page = pushing.watch.until("asking", lambda page: page[FED] == 0 and len(scores(page)) == everyone)
    assert page["stethos_detector_input_coverage_ratio"] == 1


def test_a_push_that_is_none_is_a_problem_in_one_sentence(pushing: Pushing) -> None:
    port = httpx.URL(str(pushing.place.settings["remote_write"][0]["url"]))  # type: ignore[index]
    answer = httpx.post(port, content=b"\xff")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "a message of 1 bytes is not packed with snappy"


def test_a_push_without_end_is_refused_before_it_is_held(pushing: Pushing) -> None:
    port = httpx.URL(str(pushing.place.settings["remote_write"][0]["url"]))  # type: ignore[index]
    answer = httpx.post(port, content=(bytes(1 << 20) for _ in range(80)), timeout=60)
    assert answer.status_code == 400
    assert "more than" in answer.json()["detail"]


def samples(matrix: Matrix) -> dict[tuple[str, float], float]:
    rows = zip(matrix.series.tolist(), matrix.timestamps.tolist(), matrix.values.tolist(), strict=True)
    return {(str(sorted(matrix.labels[series].items())), at): value for series, at, value in rows}
