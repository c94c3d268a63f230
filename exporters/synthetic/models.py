"""The GPU models a fleet can be made of: figures from public data sheets, and what the physics needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One product. Bandwidths are per GPU: NVLink both directions together, PCIe one direction."""

    name: str
    memory_mebibytes: float
    reserved_mebibytes: float
    idle_watts: float
    limit_watts: float
    sm_clock_megahertz: float
    idle_sm_clock_megahertz: float
    memory_clock_megahertz: float
    idle_memory_clock_megahertz: float
    slowdown_celsius: float
    resistance_kelvin_per_watt: float
    capacity_joules_per_kelvin: float
    nvlink_megabytes_per_second: float
    pcie_bytes_per_second: float
    pcie_generation: float
    reads_memory_temperature: bool
    sm_share: float  # of the limit, at full activity and full clock; the three may add up to more than 1
    tensor_share: float
    dram_share: float
    clock_exponent: float  # dynamic power over clock: f·V², V rising with f
    own_fans: bool = False  # else the node's fans cool it
    data_center: bool = True  # reports ECC, remapped rows and profiling metrics
    nvlink_by_rack: bool = False  # joins the GPUs of all nodes of a rack


# Limits, memory, highest clocks and bandwidths: NVIDIA's data sheets of H100 (SXM5), A100 (SXM4 80 GB), GB200 (NVL72),
# L40S and GeForce RTX 4090.
# Idle power, idle clocks and slowdown temperatures are typical of these boards; no data sheet states them. Nor does one
# split the power: stacked memory takes more of it than GDDR6, whose board has more multiprocessors and a higher clock.
# Resistance puts a full load at the temperatures data centres report (H100: 650 W over 25 °C air → 67 °C);
# capacity makes the time constant R·C 25 to 40 s.
MODELS: dict[str, GpuModel] = {
    "H100": GpuModel(
        name="NVIDIA H100 80GB HBM3",
        memory_mebibytes=81559,
        reserved_mebibytes=551,
        idle_watts=70,
        limit_watts=700,
        sm_clock_megahertz=1980,
        idle_sm_clock_megahertz=345,
        memory_clock_megahertz=2619,
        idle_memory_clock_megahertz=2619,
        slowdown_celsius=87,
        resistance_kelvin_per_watt=0.065,
        capacity_joules_per_kelvin=460,
        nvlink_megabytes_per_second=900_000,
        pcie_bytes_per_second=64e9,
        pcie_generation=5,
        reads_memory_temperature=True,
        sm_share=0.36,
        tensor_share=0.46,
        dram_share=0.34,
        clock_exponent=2.2,
    ),
    "A100": GpuModel(
        name="NVIDIA A100-SXM4-80GB",
        memory_mebibytes=81920,
        reserved_mebibytes=671,
        idle_watts=60,
        limit_watts=400,
        sm_clock_megahertz=1410,
        idle_sm_clock_megahertz=210,
        memory_clock_megahertz=1593,
        idle_memory_clock_megahertz=1593,
        slowdown_celsius=87,
        resistance_kelvin_per_watt=0.1,
        capacity_joules_per_kelvin=300,
        nvlink_megabytes_per_second=600_000,
        pcie_bytes_per_second=32e9,
        pcie_generation=4,
        reads_memory_temperature=True,
        sm_share=0.4,
        tensor_share=0.36,
        dram_share=0.36,
        clock_exponent=2.1,
    ),
    "GB200": GpuModel(
        name="NVIDIA GB200",
        memory_mebibytes=189471,
        reserved_mebibytes=650,
        idle_watts=170,
        limit_watts=1200,
        sm_clock_megahertz=2062,
        idle_sm_clock_megahertz=120,
        memory_clock_megahertz=3996,
        idle_memory_clock_megahertz=3996,
        slowdown_celsius=87,
        resistance_kelvin_per_watt=0.03,
        capacity_joules_per_kelvin=1000,
        nvlink_megabytes_per_second=1_800_000,
        pcie_bytes_per_second=64e9,
        pcie_generation=5,
        reads_memory_temperature=True,
        sm_share=0.36,
        tensor_share=0.46,
        dram_share=0.34,
        clock_exponent=2.2,
        nvlink_by_rack=True,
    ),
    "L40S": GpuModel(
        name="NVIDIA L40S",
        memory_mebibytes=46068,
        reserved_mebibytes=569,
        idle_watts=35,
        limit_watts=350,
        sm_clock_megahertz=2520,
        idle_sm_clock_megahertz=210,
        memory_clock_megahertz=9001,
        idle_memory_clock_megahertz=405,
        slowdown_celsius=90,
        resistance_kelvin_per_watt=0.13,
        capacity_joules_per_kelvin=290,
        nvlink_megabytes_per_second=0,
        pcie_bytes_per_second=32e9,
        pcie_generation=4,
        reads_memory_temperature=False,
        sm_share=0.5,
        tensor_share=0.4,
        dram_share=0.22,
        clock_exponent=2.4,
    ),
    "RTX4090": GpuModel(
        name="NVIDIA GeForce RTX 4090",
        memory_mebibytes=24564,
        reserved_mebibytes=346,
        idle_watts=22,
        limit_watts=450,
        sm_clock_megahertz=2745,
        idle_sm_clock_megahertz=210,
        memory_clock_megahertz=10501,
        idle_memory_clock_megahertz=405,
        slowdown_celsius=90,
        resistance_kelvin_per_watt=0.1,
        capacity_joules_per_kelvin=380,
        nvlink_megabytes_per_second=0,
        pcie_bytes_per_second=32e9,
        pcie_generation=4,
        reads_memory_temperature=False,
        sm_share=0.52,
        tensor_share=0.38,
        dram_share=0.24,
        clock_exponent=2.4,
        own_fans=True,
        data_center=False,
    ),
}
