"""Cooling by a lower power limit: the rules, a driver's library, a real synthetic fleet, and a real agent that dies."""

# ruff: noqa: N802 (the names are NVML's)

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from scheduler.agent.cooling import GIVE_BACK, Card, Claim, Cooler, LimitError, Rules, read, step
from scheduler.agent.nvml import NvmlCards
from scheduler.agent.synthetic import SyntheticCards

from .processes import Scheduler, until
from .synthetic import Fleet

RULES = Rules(85, 80, step_seconds=10)
COOL = Card("n", 0, "GPU-a", 60.0, 600.0, 700.0, 200.0)
HOT = replace(COOL, celsius=86.0)


def lowered(card: Card = HOT, at: float = 0.0) -> tuple[Claim, float]:
    then = step(card, None, RULES, at)
    assert then.claim
    assert then.watts
    return then.claim, then.watts


def test_the_limit_goes_below_what_is_drawn_and_back_once_it_is_cool() -> None:
    assert step(COOL, None, RULES, 0).watts is None
    claim, watts = lowered()
    assert watts == 540
    between = replace(HOT, celsius=82.0, limit_watts=watts)
    assert step(between, claim, RULES, 60).watts is None
    back = step(replace(between, celsius=80.0), claim, RULES, 60)
    assert (back.claim, back.watts) == (None, 700.0)


def test_it_goes_on_in_steps_while_it_stays_hot_down_to_what_the_board_takes() -> None:
    claim, watts = lowered()
    card = replace(HOT, limit_watts=watts, draw_watts=watts)
    assert step(card, claim, RULES, 9).watts is None
    limits = []
    for at in range(10, 200, 10):
        then = step(card, claim, RULES, at)
        assert then.claim
        claim = then.claim
        if then.watts:
            limits.append(then.watts)
            card = replace(card, limit_watts=then.watts, draw_watts=then.watts)
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == 200
    assert step(replace(card, celsius=50.0), claim, RULES, 0).watts == 700


def test_a_gpu_that_hardly_draws_is_not_strangled_at_once() -> None:
    assert lowered(replace(HOT, draw_watts=90.0))[1] == 525
    assert step(replace(HOT, limit_watts=200.0, draw_watts=90.0), None, RULES, 0) == step(COOL, None, RULES, 0)


def test_an_operators_limit_is_left_alone_until_the_heat_is_over() -> None:
    claim, _ = lowered()
    theirs = replace(HOT, limit_watts=650.0)
    then = step(theirs, claim, RULES, 100)
    assert then.watts is None
    assert then.claim
    assert step(theirs, then.claim, RULES, 200).watts is None
    assert step(replace(theirs, celsius=79.0), then.claim, RULES, 300) == step(COOL, None, RULES, 0)
    assert lowered(theirs, 400)[0].usual_watts == 650


class Nvml:
    """A library that answers as pynvml does for two cards, of which the second knows no power limits."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, allowed: bool = True) -> None:
        self.celsius, self.milliwatts, self.allowed = 86, 700_000, allowed

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: int) -> list[int]:
        if handle:
            raise self.NVMLError("Not Supported")
        return [200_000, 700_000]

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        return self.milliwatts

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return min(self.milliwatts, 650_000)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self.celsius

    def nvmlDeviceSetPowerManagementLimit(self, handle: int, milliwatts: int) -> None:
        if not self.allowed:
            raise self.NVMLError("Insufficient Permissions")
        self.milliwatts = milliwatts


def looks(library: Nvml, file: Path, *celsius: int, rules: Rules = RULES) -> Cooler:
    """An agent's cooler that is started, and looks once at each of these temperatures."""
    cooler = Cooler(NvmlCards(library, "n"), rules, file)
    for each in celsius:
        library.celsius = each
        asyncio.run(cooler.look())
    return cooler


def test_through_nvml_a_hot_card_gets_a_lower_limit_and_its_own_back(tmp_path: Path) -> None:
    library, file = Nvml(), tmp_path / "cooling.json"
    cooler = looks(library, file, 84, 86)
    assert library.milliwatts == 585_000
    assert [(claim.gpu, claim.usual_watts) for claim in cooler.lowered()] == [(0, 700.0)]
    looks(library, file, 82, 80)
    assert library.milliwatts == 700_000
    assert read(file) == []


def test_an_agent_that_was_killed_gives_back_what_it_had_lowered(tmp_path: Path) -> None:
    library, file = Nvml(), tmp_path / "cooling.json"
    looks(library, file, 90)
    looks(library, file, 84)
    assert library.milliwatts == 585_000
    looks(library, file, 90, rules=GIVE_BACK)
    assert library.milliwatts == 700_000


def test_an_agent_that_stops_in_good_order_gives_everything_back(tmp_path: Path) -> None:
    library = Nvml()
    asyncio.run(looks(library, tmp_path / "cooling.json", 90).stop())
    assert library.milliwatts == 700_000


@pytest.mark.parametrize("set_before_the_end", [True, False])
def test_a_kill_between_disk_and_driver_leaves_no_limit_behind(tmp_path: Path, set_before_the_end: bool) -> None:
    library, file = Nvml(), tmp_path / "cooling.json"
    looks(library, file, 90)
    first = library.milliwatts
    (claim,) = json.loads(file.read_text())
    file.write_text(json.dumps([claim | {"stepped_at": 0.0}]))
    looks(library, file, 90)
    assert library.milliwatts < first
    if not set_before_the_end:
        library.milliwatts = first
    looks(library, file, 70)
    assert library.milliwatts == 700_000


def test_without_the_right_to_set_it_nothing_is_claimed(tmp_path: Path) -> None:
    library, file = Nvml(allowed=False), tmp_path / "cooling.json"
    assert looks(library, file, 90, 91).lowered() == []
    assert (library.milliwatts, read(file)) == (700_000, [])


def test_no_driver_is_said_in_a_sentence() -> None:
    class Without(Nvml):
        def nvmlInit(self) -> None:
            raise self.NVMLError("Driver Not Loaded")

    with pytest.raises(LimitError, match="NVML cannot be used here: Driver Not Loaded"):
        NvmlCards(Without(), "n")


@pytest.fixture
def fast_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A minute in a second, and no scheduler."""
    (tmp_path / "token").write_text("a-token-of-this-test")
    with Fleet(tmp_path, "a-token-of-this-test", "--speed", "60") as found:
        yield found


def test_a_synthetic_gpu_without_its_fan_is_capped_and_cools_under_load(fast_fleet: Fleet, tmp_path: Path) -> None:
    fast_fleet.http.post("/v1/loads", json={"node": "node-01", "gpus": [0], "kind": "matrix"}).raise_for_status()
    fault = fast_fleet.fault("fan_failure", "node-01", 0)

    def heat() -> float:
        return float(fast_fleet.limit("node-01", 0)["temperature_celsius"])

    until(lambda: heat() > 85)

    async def cool(until_it_is: Callable[[], bool]) -> None:
        cards = SyntheticCards(fast_fleet.url, "a-token-of-this-test")
        cooler = Cooler(cards, Rules(85, 80, step_seconds=1), tmp_path / "cooling.json")
        async with asyncio.timeout(60):
            while not until_it_is():
                await cooler.look()
                await asyncio.sleep(0.05)
        await cards.close()

    asyncio.run(cool(lambda: heat() <= 84))
    assert fast_fleet.limit("node-01", 0)["limit_watts"] < 650
    assert fast_fleet.limit("node-01", 1)["limit_watts"] == 700
    fast_fleet.http.delete(f"/v1/faults/{fault}")
    asyncio.run(cool(lambda: fast_fleet.limit("node-01", 0)["limit_watts"] == 700))
    assert read(tmp_path / "cooling.json") == []


@dataclass
class Seen:
    """What the scheduler tells of one GPU."""

    scheduler: Scheduler
    node: str
    gpu: int

    @property
    def cooling(self) -> object:
        return self.scheduler.get(f"/v1/nodes/{self.node}")["gpus"][self.gpu]["cooling"]

    def changes(self) -> Sequence[str]:
        history = self.scheduler.get(f"/v1/nodes/{self.node}/history?gpu={self.gpu}")
        return [change["type"] for change in history["changes"] if change["subject"] == f"{self.node}/{self.gpu}"]


@pytest.mark.slow
def test_an_overheating_gpu_cools_before_anybody_drains_it_and_over_a_killed_agent(own_scheduler: Scheduler) -> None:
    scheduler = own_scheduler
    with Fleet(scheduler.home, scheduler.token, "--speed", "20") as fleet:
        _cools_and_gives_back(scheduler, fleet)


def _cools_and_gives_back(scheduler: Scheduler, fleet: Fleet) -> None:
    with scheduler.agent("--synthetic", fleet.url, "--cool") as agent:
        job = scheduler.submit(type="matrix", gpus=1, duration_seconds=250, timeout_seconds=280)
        where = scheduler.becomes(job, "running")["placement"][0]
        node, gpu = where["node"], where["gpus"][0]
        seen = Seen(scheduler, node, gpu)
        fault = fleet.fault("fan_failure", node, gpu)
        until(lambda: seen.cooling, 60)
        until(lambda: fleet.limit(node, gpu)["temperature_celsius"] <= 85, 60)
        assert fleet.limit(node, gpu)["limit_watts"] < 700
        assert scheduler.job(job["id"])["state"] == "running"
        assert scheduler.get(f"/v1/nodes/{node}")["gpus"][gpu]["cordon"] is None
        agent.send(signal.SIGKILL)
    # A machine in good health at last, and an agent that nobody told to cool: what was lowered is given back.
    fleet.http.delete(f"/v1/faults/{fault}")
    with scheduler.agent("--synthetic", fleet.url, log="again.log"):
        until(lambda: fleet.limit(node, gpu)["limit_watts"] == 700, 30)
        until(lambda: seen.cooling is None and seen.changes()[0] == "gpu.cooled", 30)
    assert "gpu.cooling" in seen.changes()


def test_the_two_temperatures_have_an_order(own_scheduler: Scheduler) -> None:
    with own_scheduler.agent("--node", "n", "--gpus", "1", "--cool", "--cool-above", "70") as agent:
        until(lambda: agent.ended)
    assert "--cool-until 80 must be under --cool-above 70" in (own_scheduler.home / "agent.log").read_text()
