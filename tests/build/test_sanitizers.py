"""The C++ kernels without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_no_kernel_leaves_its_buffers_or_the_language(tmp_path: Path) -> None:
    cmake = (sys.executable, "-m", "cmake")
    options = ("-GNinja", "-DMARFAST_BUILD=driver", "-DMARFAST_SANITIZE=address,undefined")
    for command in (("-S", ROOT, "-B", tmp_path, *options), ("--build", tmp_path)):
        built = run(*cmake, *command)
        assert built.returncode == 0, built.stdout + built.stderr
    driver, environment = tmp_path / "driver", {**os.environ, "OMP_NUM_THREADS": "2"}

    well = run(driver, env=environment)
    assert well.returncode == 0, well.stdout + well.stderr
    assert " 0 failures, up to 2 threads" in well.stdout

    beyond = run(driver, "beyond", env=environment)
    assert beyond.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in beyond.stderr
