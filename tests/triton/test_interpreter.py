"""Runs the tests of `interpreted` in a process where triton is imported as an interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.triton.versions import why_not

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_kernels_under_the_interpreter() -> None:
    if reason := why_not():
        pytest.skip(reason)
    options = ("-q", "-n", "2", "--no-cov", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "interpreted")],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
