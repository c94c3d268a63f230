"""Peer deviation: the definition against hand values, the fast versions against the definition."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from kernels import Deviation, peer_deviation
from kernels.arrays import Floats
from kernels.group_deviation import cpu, reference
from tests.kernels.cases import TOLERANCE, Case, cases, check, csr, large

ROOT = Path(__file__).parents[2]
DTYPES = (np.float32, np.float64)
CASES = [case for dtype in DTYPES for case in [*cases(dtype), large(dtype)]]


def titled(case: Case) -> str:
    return f"{case.name} {case.values.dtype}"


@pytest.mark.parametrize("version", [reference.peer_deviation, peer_deviation])
def test_hand_values(version: object) -> None:
    """Even and odd counts, an absent member, an infinite one, and a group too small to speak."""
    assert callable(version)
    values = np.array([[1, 2, 4, 10, np.nan, np.inf]])
    result = version(values, *csr([0, 1, 2, 3], [0, 1, 3, 4, 5], [0, 4, 5]))
    np.testing.assert_array_equal(result.median, [[3, 2, np.nan]])
    np.testing.assert_array_equal(result.mad, [[1.5, 1, np.nan]])
    shares = np.array([[-2 / 1.5, -1 / 1.5, 1 / 1.5, 7 / 1.5, -1, 0, 8, np.nan, np.inf, *[np.nan] * 3]])
    np.testing.assert_allclose(result.deviation, shares / 1.4826, rtol=TOLERANCE[np.float64])


@pytest.mark.parametrize("version", [reference.peer_deviation, peer_deviation])
def test_without_spread_a_stranger_is_infinitely_far(version: object) -> None:
    """The floor decides how far; without one the median is at 0 and all else at infinity."""
    assert callable(version)
    values = np.array([[5.0, 5.0, 5.0, 5.5, 4.0]])
    bare = version(values, *csr(range(5)))
    np.testing.assert_array_equal(bare.deviation, [[0, 0, 0, np.inf, -np.inf]])
    floored = version(values, *csr(range(5)), floor=0.5)
    np.testing.assert_allclose(floored.deviation, np.array([[0, 0, 0, 1, -2]]) / 1.4826)


@pytest.mark.parametrize("case", CASES, ids=titled)
def test_cpu_equals_the_reference(case: Case) -> None:
    check(cpu.fill, case)


def on_card(**environment: str) -> str:
    command = [sys.executable, "-m", "tests.kernels.on_card"]
    finished = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_cuda_equals_the_reference_under_the_simulator() -> None:
    assert on_card(NUMBA_ENABLE_CUDASIM="1").endswith("cases equal the reference\n")


def has_driver() -> bool:
    """Numba's own answer would be yes under the simulator."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


needs_card = pytest.mark.skipif(not has_driver(), reason="no NVIDIA driver on this machine")


@pytest.mark.gpu
@needs_card
def test_cuda_equals_the_reference_on_the_card() -> None:
    assert on_card(NUMBA_ENABLE_CUDASIM="0").endswith("cases equal the reference\n")


@pytest.mark.gpu
@needs_card
def test_cupy_arrays_stay_on_the_card() -> None:
    """The public call takes CuPy arrays and answers with CuPy arrays, equal to NumPy's."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    case = cases(np.float32)[0]
    result = peer_deviation(cupy.asarray(case.values), case.members, case.offsets)
    expected = peer_deviation(case.values, case.members, case.offsets)
    assert isinstance(result.deviation, cupy.ndarray)
    np.testing.assert_allclose(result.deviation.get(), expected.deviation, rtol=TOLERANCE[np.float32])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_has_the_shape_and_dtype_of_the_values(dtype: type[np.float32]) -> None:
    members, offsets = csr([0, 1, 2], [2, 3, 4, 5])
    flat = peer_deviation(np.zeros((2, 6), dtype), members, offsets)
    assert (flat.median.shape, flat.deviation.shape) == ((2, 2), (2, 7))
    assert flat.median.dtype == flat.mad.dtype == flat.deviation.dtype == dtype
    window = peer_deviation(np.zeros((2, 6, 4), dtype), members, offsets.astype(np.int32))
    assert (window.median.shape, window.deviation.shape) == ((2, 2, 4), (2, 7, 4))


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0), (2, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    """No signals, steps or GPUs: the empty groups have no opinion."""
    result = peer_deviation(np.zeros(shape), *csr([], []))
    assert result.median.shape == (shape[0], 2, *shape[2:])
    assert np.isnan(result.median).all()
    assert np.isnan(result.mad).all()


def test_no_groups_at_all() -> None:
    assert peer_deviation(np.zeros((2, 3)), *csr()).median.shape == (2, 0)


def test_out_is_written_and_returned() -> None:
    values = np.array([[1.0, 2.0, 4.0]])
    out = Deviation(np.full((1, 1), np.nan), np.full((1, 1), np.nan), np.full((1, 3), np.nan))
    assert peer_deviation(values, *csr(range(3)), out=out) is out
    assert out.median == 2
    assert np.isfinite(out.deviation).all()


def test_torch_tensors_travel_without_a_copy() -> None:
    """A tensor's memory is read and written in place by way of its NumPy view."""
    tensor = torch.tensor([[1.0, 2.0, 4.0, 9.0]])
    deviation = torch.full((1, 4), torch.nan)
    out = Deviation(np.empty((1, 1), np.float32), np.empty((1, 1), np.float32), deviation.numpy())
    peer_deviation(tensor.numpy(), *csr(range(4)), out=out)
    torch.testing.assert_close(deviation, torch.tensor([[-2.0, -1.0, 1.0, 6.0]]) / 1.5 / 1.4826)


def test_threads_may_call_at_once() -> None:
    """Even on Numba's own thread pool, which aborts the process when entered twice."""
    program = (
        "import numpy as np\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from kernels import peer_deviation\n"
        "from kernels.group_deviation import cpu, reference\n"
        "values = np.random.default_rng(0).normal(size=(9, 2000)).astype(np.float32)\n"
        "assert values.size > cpu.READINGS_PER_THREAD\n"
        "groups = np.arange(2000, dtype=np.int32), np.arange(0, 2001, 8)\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: peer_deviation(values, *groups).deviation, range(40)))\n"
        "expected = reference.peer_deviation(values, *groups).deviation\n"
        "np.testing.assert_allclose(found[0], expected, rtol=2**-21)\n"
        "assert all((each == found[0]).all() for each in found)\n"
    )
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)


def test_the_import_is_light() -> None:
    program = "import sys, kernels; print([n for n in ('numba', 'cupy', 'torch', 'scipy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


readings = array_of(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 12)),
    elements=st.integers(-64, 64).map(float) | st.just(np.nan),
)


@given(values=readings, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_members_does_not_matter(values: Floats, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values.shape[1])
    straight, mixed = (peer_deviation(values, *csr(order)) for order in (range(values.shape[1]), shuffled))
    np.testing.assert_array_equal(mixed.median, straight.median)
    np.testing.assert_array_equal(mixed.mad, straight.mad)
    np.testing.assert_array_equal(mixed.deviation, straight.deviation[:, shuffled])


@given(values=readings, shift=st.integers(-1000, 1000), power=st.integers(-8, 8), sign=st.sampled_from([-1, 1]))
def test_another_unit_gives_the_same_deviation(values: Floats, shift: int, power: int, sign: int) -> None:
    """Shifting and scaling move the median along, stretch the spread, and at most flip the deviation."""
    scale = sign * 2.0**power  # exact in binary, so that the equality is exact too
    groups = csr(range(values.shape[1]))
    plain, changed = peer_deviation(values, *groups), peer_deviation(values * scale + shift, *groups)
    np.testing.assert_array_equal(changed.median, plain.median * scale + shift)
    np.testing.assert_array_equal(changed.mad, plain.mad * abs(scale))
    np.testing.assert_allclose(changed.deviation, plain.deviation * sign, rtol=TOLERANCE[np.float64])


def reject(match: str, error: type[Exception] = ValueError, **changes: object) -> None:
    members, offsets = csr([0, 1, 2], [3, 4])
    good: dict[str, object] = {"values": np.zeros((2, 5)), "members": members, "offsets": offsets}
    with pytest.raises(error, match=match):
        peer_deviation(**good | changes)  # type: ignore[arg-type]


def test_a_group_beyond_the_card_is_named() -> None:
    """A block's shared memory is the limit; the check comes before anything is launched."""
    program = (
        "import numpy as np\n"
        "from kernels.group_deviation import cuda\n"
        "from tests.kernels.cases import Case, check, csr\n"
        "check(cuda.fill, Case('', np.zeros((1, 6081)), *csr(range(6081))))\n"
    )
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert "a group of 6081 members does not fit on the card: at most 6080 float64" in done.stderr


def test_errors_name_what_does_not_fit() -> None:
    reject("NumPy or a CuPy array, got Tensor", TypeError, values=torch.zeros(2, 5))
    reject("float32 or float64, got int64", TypeError, values=np.zeros((2, 5), np.int64))
    reject(r"got shape \(5,\)", values=np.zeros(5))
    reject(r"C-contiguous, got strides \(8, 16\)", values=np.zeros((5, 2)).T)
    reject("members must be int32 .*, got int64", TypeError, members=np.arange(5))
    reject("offsets must be int32 or int64 .*, got float64", TypeError, offsets=np.array([0.0, 3.0, 5.0]))
    reject("from 0 to the 5 memberships, got 0 to 4", offsets=np.array([0, 4]))
    reject("from 0 to the 5 memberships, got nothing", offsets=np.array([], dtype=np.int64))
    reject("group 1 ends at 2, before its start at 3", offsets=np.array([0, 3, 2, 5]))
    reject("group 1 names GPU 5, but values hold 5", members=np.array([0, 1, 2, 5, 4], np.int32))
    reject("group 0 names GPU -1, but values hold 5", members=np.array([0, -1, 2, 3, 4], np.int32))
    reject(r"one per signal \[2\], got shape \(3,\)", floor=np.zeros(3))
    reject("finite and not negative, got -0.5", floor=np.array([1, -0.5]))
    reject("finite and not negative, got nan", floor=np.nan)
    reject("at least 1 member, got 0", minimum=0)


def test_a_wrong_out_is_named_and_untouched() -> None:
    out = Deviation(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 4)))
    reject(r"out.deviation must be C-contiguous float64 \(2, 5\), got float64 \(2, 4\)", out=out)
    assert not out.median.any()
    single = Deviation(np.zeros((2, 2), np.float32), np.zeros((2, 2)), np.zeros((2, 5)))
    reject(r"out.median must be C-contiguous float64 \(2, 2\), got float32", out=single)
