"""The C++ kernels without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def missing() -> str:
    tools = [tool for tool in ("cmake", "ninja", "c++") if shutil.which(tool) is None]
    return f"{' and '.join(tools)} not found" if tools else ""


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_no_kernel_leaves_its_buffers_or_the_language(tmp_path: Path) -> None:
    options = ["-GNinja", "-DMARFAST_BUILD=driver", "-DMARFAST_SANITIZE=address,undefined"]
    subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, *options], check=True, capture_output=True)
    built = subprocess.run(["ninja", "-C", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout
    driver, environment = tmp_path / "driver", {**os.environ, "OMP_NUM_THREADS": "2"}

    well = subprocess.run([driver], capture_output=True, text=True, env=environment)
    assert well.returncode == 0, well.stdout + well.stderr
    assert " 0 failures, up to 2 threads" in well.stdout

    beyond = subprocess.run([driver, "beyond"], capture_output=True, text=True, env=environment)
    assert beyond.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in beyond.stderr
