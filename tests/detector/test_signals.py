from pathlib import Path

import pytest

from detector import signals
from detector.signals import SignalsError

HEAD = "activity: a\neffort: b\njobs: j\ntargets: t\nsignals:\n"


def test_the_shipped_file_describes_every_gpu_signal_once() -> None:
    loaded = signals.load()
    named = [query.signal.name for query in loaded.queries if query.signal]
    assert len(named) == len(set(named))
    assert {loaded.activity, loaded.effort} <= set(named)


def test_a_signal_that_the_file_does_not_list_is_a_plain_gauge() -> None:
    assert signals.load().describe("queue_length").direction == "both"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("signals: [", "not YAML"),
        (HEAD + "  - {query: q}", "either a name or an expand label"),
        (HEAD + "  - {name: a, expand: b, query: q}", "either a name or an expand label"),
        (HEAD + "  - {name: a, query: q, direction: up}", "signals.0.direction"),
        (HEAD + "  - {name: a, query: q, resolution: -2}", "resolution -2.0 is negative"),
        (HEAD + "  - {name: a, query: q, range: [5, 1]}", "range [5.0, 1.0] is empty"),
        (HEAD + "  - {name: a, query: q, colour: red}", "signals.0.colour"),
        (HEAD + "  - {name: a, query: q}\n  - {name: a, query: r}", "'a' is listed twice"),
        (HEAD + "  - {name: a, query: q, twin: b}", "a has the twin 'b', which is not a signal"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "signals.yml"
    file.write_text(content)
    with pytest.raises(SignalsError) as error:
        signals.load(file)
    assert named in str(error.value)
    assert str(file) in str(error.value)
