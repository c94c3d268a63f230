"""The benchmark measures what it says: the same samples on both sides, a real process, every scrape answered."""

from exporters import bench, scrapes


def test_both_sides_write_the_same_samples() -> None:
    own, plain = bench.ours(rounds=3), bench.gauges(rounds=3)
    assert own.samples == plain.samples > 400
    assert 0 < own.median_ms <= own.p99_ms
    assert 0.8 < own.bytes / plain.bytes < 1.2


def test_a_process_is_scraped_at_the_interval_asked_for() -> None:
    measured = scrapes.steady(nodes=3, interval=1.0, seconds=2.0, tell=lambda *_: None)
    assert measured.took.scrapes == 6
    assert measured.missed == 0
    assert 0 < measured.cores < 2
    assert measured.mebibytes_after > 20


def test_exporter_and_floor_are_scraped_in_turns() -> None:
    for took in scrapes.beside_floor(interval=0.1, seconds=1.0):
        assert took.scrapes == 10
        assert 0 < took.median_ms <= took.p99_ms
