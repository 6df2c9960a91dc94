"""The kernels' threads are torch's own, and give way where there are more of them than cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import HANG

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("needs_native")

ONE_RUNTIME = """
import re, torch
from marfast import ops
from tests.ops.heads import sample_inputs

def runtimes():
    with open("/proc/self/maps") as maps:
        return set(re.findall(r"\\S*/lib(?:gomp|iomp5|omp)[^/\\s]*", maps.read()))

torch.set_num_threads(2)
before = runtimes()
ops.ddpm_sample(*sample_inputs())
print(len(before), runtimes() == before)
"""

MANY = """
import torch
from marfast import ops
from tests.ops.heads import sample_inputs

arguments = sample_inputs(2, steps=200, depth=8, width=32, condition=4)
expected = ops.ddpm_sample(*arguments)
torch.set_num_threads(THREADS)
print(torch.equal(ops.ddpm_sample(*arguments), expected))
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc/self/maps")
def test_there_is_one_openmp_runtime_in_the_process():
    assert run(ONE_RUNTIME) == "1 True"


def test_more_threads_than_cores_still_move_on():
    """5,200 barriers: were each to wait for the scheduler's time slices, that would be minutes."""
    threads = 16 * (os.cpu_count() or 1)
    assert run(MANY.replace("THREADS", str(threads))) == "True"
