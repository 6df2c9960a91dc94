"""Operator calls and instructions are what was committed: a guard that no busy machine blurs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["operators", "instructions"])
def test_the_work_is_what_was_committed(kind: str) -> None:
    command = (sys.executable, "-m", "benchmarks.counts", kind)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
