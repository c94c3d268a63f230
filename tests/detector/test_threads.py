import subprocess
import sys

ALONE = """
import numpy as np, torch
from detector.threads import limit
from kernels import window_features
limit(1)
window_features(np.zeros((20_000, 60), np.float32), 48)
print(torch.get_num_threads())
"""


def test_kernels_that_take_all_cores_leave_the_model_its_threads() -> None:
    """In a process of its own: the kernels' threads are started but once."""
    told = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.strip() == "1", told.stderr
