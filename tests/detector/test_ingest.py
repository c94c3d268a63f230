import pytest

from detector import ingest, signals
from detector.ingest import expression
from detector.signals import Query


@pytest.mark.parametrize(
    ("promql", "expand", "asked"),
    [
        ("gpu:power:watts", None, "gpu:power:watts"),
        ('gpu:power:watts{model="H100"}', None, 'gpu:power:watts{model="H100"}'),
        ("DCGM_FI_DEV_GPU_TEMP", None, "max by (node, gpu, uuid, model, rack) (DCGM_FI_DEV_GPU_TEMP)"),
        ("rate(gpu:ecc:total[1m])", None, "max by (node, gpu, uuid, model, rack) (rate(gpu:ecc:total[1m]))"),
        ("gpu:a:b + gpu:c:d", None, "max by (node, gpu, uuid, model, rack) (gpu:a:b + gpu:c:d)"),
        ("stethos_signal", "signal", "max by (node, gpu, uuid, model, rack, signal) (stethos_signal)"),
    ],
)
def test_only_a_recorded_series_is_asked_for_as_it_is(promql: str, expand: str | None, asked: str) -> None:
    assert expression(Query(promql, None, expand)) == asked


def test_a_share_of_a_recorded_series_is_asked_for_as_it_is() -> None:
    assert expression(Query("gpu:power:watts", None, None), frozenset({"b", "a"})) == 'gpu:power:watts{node=~"a|b"}'


def test_what_is_read_by_its_bare_name_may_be_pushed() -> None:
    names = ingest.names_of(signals.load())
    assert {"gpu:power:watts", "gpu:job:info", "stethos_signal"} <= names
    assert all(name.replace(":", "_").isidentifier() for name in names)
