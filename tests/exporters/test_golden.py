"""The wire contract: what each kind of card is exposed as, to the letter, under each generation of names."""

import math
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporters import dcgm
from exporters.nvml import Nvml
from tests.exporters.fake_nvml import TREES, FakeGpu, FakeNvml

GOLDEN = Path(__file__).with_name("golden")
CARDS = sorted(file.stem for file in TREES.glob("*.json"))


def exposed(card: str, names: dcgm.Names) -> str:
    device = Nvml(FakeNvml(FakeGpu("GPU-4a1d6b1c-0b6e-5c0e-9a2e-0d8f5f9d7a11", card))).devices[0]
    device.read(0)  # rates need two looks
    return dcgm.expose(device.read(0), "node-01", names)


def test_there_are_four_kinds_of_cards() -> None:
    assert CARDS == ["a100", "geforce", "h100", "l40s"]


@pytest.mark.parametrize("names", dcgm.NAMES)
@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_exposed_exactly_as_its_golden_file_says(card: str, names: dcgm.Names) -> None:
    assert exposed(card, names) == (GOLDEN / f"{card}.{names}.prom").read_text()


@pytest.mark.parametrize("names", dcgm.NAMES)
@pytest.mark.parametrize("card", CARDS)
def test_every_sample_is_a_number(card: str, names: dcgm.Names) -> None:
    families = list(text_string_to_metric_families(exposed(card, names)))
    assert all(math.isfinite(sample.value) for family in families for sample in family.samples)
    assert len({family.name for family in families}) == len(families)


@pytest.mark.parametrize(
    ("card", "absent"),
    [
        ("a100", ["DCGM_FI_PROF_", "DCGM_FI_DEV_FAN_SPEED", "DCGM_FI_DEV_GPU_RECOVERY_ACTION"]),
        ("l40s", ["DCGM_FI_PROF_", "NVLINK", "MEMORY_TEMP"]),
        ("geforce", ["DCGM_FI_PROF_", "NVLINK", "ECC", "ROW_REMAP", "MEMORY_TEMP"]),
        ("h100", ["DCGM_FI_DEV_FAN_SPEED", "RETIRED", "DCGM_FI_PROF_DRAM_ACTIVE"]),
    ],
)
def test_what_a_card_lacks_is_absent(card: str, absent: list[str]) -> None:
    text = exposed(card, "legacy")
    assert [each for each in absent if each in text] == []
