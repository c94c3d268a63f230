import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import matrix
from detector.matrix import LabelSets
from detector.promql import Prometheus, PrometheusError

VALUES = ["0", "-1.5", "61.53421", "0.000123456789", "1980000000", "NaN", "+Inf", "-Inf", "1e+100", "2.5E-07"]


def answer(series: list[tuple[dict[str, str], list[tuple[float, str]]]], space: str = "") -> bytes:
    rows = [{"metric": labels, "values": samples} for labels, samples in series]
    content = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
    return json.dumps(content, separators=("," + space, ":" + space)).encode()


@contextmanager
def server(body: bytes, status: int = 200, heard: list[str] | None = None) -> Iterator[Prometheus]:
    """Always answers that. heard: gets what each request shows to be let in."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if heard is not None:
                heard.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            with Prometheus(f"http://127.0.0.1:{listening.server_port}") as client:
                yield client
        finally:
            listening.shutdown()
            thread.join()


SERIES = st.lists(
    st.tuples(
        st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3),
        st.lists(
            st.tuples(st.floats(0, 4e9, allow_nan=False).map(lambda at: round(at, 3)), st.sampled_from(VALUES)),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=4,
)


@given(SERIES)
def test_any_answer_of_prometheus_is_read_as_json_would_be(
    series: list[tuple[dict[str, str], list[tuple[float, str]]]],
) -> None:
    found = matrix.cut(answer(series), LabelSets())
    assert found is not None
    rest, read = found
    assert json.loads(rest)["data"]["result"] == []
    assert list(read.labels) == [labels for labels, _ in series]
    flat = [(row, at, value) for row, (_, samples) in enumerate(series) for at, value in samples]
    np.testing.assert_array_equal(read.series, [row for row, _, _ in flat])
    np.testing.assert_allclose(read.timestamps, [at for _, at, _ in flat], rtol=1e-15)
    np.testing.assert_allclose(read.values, [float(value) for _, _, value in flat], rtol=1e-15)


def test_another_layout_of_the_same_json_is_read_too() -> None:
    body = answer([({"node": 'a "quoted" }', "gpu": "0"}, [(5.0, "1.25"), (10.0, "NaN")])], space=" ")
    assert matrix.cut(body, LabelSets()) is None
    with server(body) as client:
        found = client.range("x", 5, 10, 5)
    assert found.labels == ({"node": 'a "quoted" }', "gpu": "0"},)
    np.testing.assert_array_equal(found.values, [1.25, np.nan])


def test_label_sets_are_kept_while_they_do_not_change() -> None:
    kept, one, two = LabelSets(), ({"gpu": "0"}, [(1.0, "1")]), ({"gpu": "1"}, [(1.0, "2")])
    first, again, other = (matrix.cut(answer(series), kept) for series in ([one], [one], [two, one]))
    assert first
    assert again
    assert other
    assert again[1].labels is first[1].labels
    assert other[1].labels == ({"gpu": "1"}, {"gpu": "0"})


@pytest.mark.parametrize("cut_at", [30, 70, 100, -3])
def test_half_an_answer_is_an_error(cut_at: int) -> None:
    body = answer([({"node": "a", "gpu": "0"}, [(5.0, "1.25"), (10.0, "2")])])[:cut_at]
    with server(body) as client, pytest.raises(PrometheusError, match="is not Prometheus'"):
        client.range("up", 5, 10, 5)


def test_what_stands_before_prometheus_and_refuses_is_named_by_its_status() -> None:
    with server(b"<html>", 401) as client, pytest.raises(PrometheusError, match=r"\(HTTP 401 Unauthorized\)"):
        client.range("up", 5, 10, 5)


@pytest.mark.parametrize("url", ["127.0.0.1:9090", "localhost:9090", "ftp://a", "http://", "http://a:port", ""])
def test_what_is_no_url_is_told_before_anything_is_asked(url: str) -> None:
    with pytest.raises(PrometheusError, match="is not a URL"):
        Prometheus(url)


def test_what_a_partial_answer_says_is_counted() -> None:
    body = answer([({"gpu": "0"}, [(5.0, "1")])])[:-1] + b',"warnings":["a store is down"],"isPartial":true}'
    with server(body) as client:
        assert len(client.range("up", 5, 5, 5).values) == 1
        assert client.warnings == 1
