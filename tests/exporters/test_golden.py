"""The wire contract: what each kind of card is exposed as, to the letter, under each generation of names."""

import math
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporters import dcgm, exposition
from exporters.discovery import Place
from exporters.machine import MachineSource, Options
from exporters.nvml import Nvml
from exporters.replay import ReplaySource
from exporters.synthetic.fleet import build
from exporters.synthetic.models import MODELS
from exporters.synthetic.source import SyntheticSource
from tests.exporters.fake_nvml import TREES, FakeGpu, FakeNvml
from tests.exporters.test_replay import recorded
from tests.prometheus.servers import program

GOLDEN = Path(__file__).with_name("golden")
CARDS = sorted(file.stem for file in TREES.glob("*.json"))


def exposed(card: str, names: dcgm.Names) -> str:
    device = Nvml(FakeNvml(FakeGpu("GPU-4a1d6b1c-0b6e-5c0e-9a2e-0d8f5f9d7a11", card))).devices[0]
    device.read()  # rates need two looks
    return dcgm.expose([replace(each, xid_code=0) for each in device.read()], "node-01", names)


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


def synthetic(model: str, names: dcgm.Names) -> str:
    fleet = build(1, 2, 32, [model], seed=7)
    fleet.add_fault("off_the_bus", "node-01", 1, 1.0)
    return SyntheticSource(fleet, names=names).page("node-01")


def machine(card: str, names: dcgm.Names) -> str:
    """The whole page, with jobs, XIDs, processes and what the exporter says of itself."""
    processes = [{"pid": 1, "usedGpuMemory": 1 << 30}]
    gpus = [
        FakeGpu("GPU-a", card, calls={"nvmlDeviceGetComputeRunningProcesses_v3": processes}),
        FakeGpu("GPU-b", card),
    ]
    library = FakeNvml(*gpus)
    nvml = Nvml(library)
    source = MachineSource(nvml, Place("node-01"), 60.0, Options(names, processes=True, kernel_log=None))
    library.gpus[1].lost = True
    for device in [*nvml.devices, *nvml.devices]:
        source.look(device)
    source.record_xid("nvml", 0, 63, 1.5)
    page = source.page("node-01")
    assert 'stethos_gpu_xid_errors_total{gpu="0",UUID="GPU-a",xid="63"} 1' in page
    return page


@pytest.fixture(scope="module", params=dcgm.NAMES)
def pages(request: pytest.FixtureRequest) -> list[str]:
    played = ReplaySource(recorded(), names=request.param).page("node-01")
    whole = [machine(card, request.param) for card in CARDS] + [synthetic(model, request.param) for model in MODELS]
    return [*whole, played]


def test_promtool_can_read_every_page(pages: list[str]) -> None:
    for page in pages:
        command = [program("promtool"), "check", "metrics"]
        done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
        # 3: readable, but DCGM does not name things as promtool would
        assert done.returncode in (0, 3), done.stderr


def test_the_openmetrics_parser_can_read_every_page(pages: list[str]) -> None:
    for page in pages:
        names = [line.partition("{")[0] for line in page.splitlines() if not line.startswith("#")]
        plain = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        text = exposition.openmetrics(page)
        families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        samples = [sample for family in families for sample in family.samples]
        assert [each.name for each in samples] == names
        assert [(each.labels, each.value) for each in samples] == [(each.labels, each.value) for each in plain]
        assert {family.type for family in families} >= {"gauge", "unknown"}


def test_a_synthetic_card_has_what_the_real_one_has() -> None:
    def families(text: str) -> set[str]:
        return {family.name for family in text_string_to_metric_families(text)}

    assert "DCGM_FI_DEV_FAN_SPEED" in families(synthetic("RTX4090", "legacy"))
    for card, model in (("geforce", "RTX4090"), ("l40s", "L40S"), ("h100", "H100")):
        mine = {name for name in families(synthetic(model, "legacy")) if name.startswith("DCGM_FI_DEV")}
        assert mine - families(exposed(card, "legacy")) == set()
