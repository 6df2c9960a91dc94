"""What NVTX ranges a program opens, seen by a tool of our own: no NVIDIA tool is needed."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Seen(NamedTuple):
    """A range with those around it, `marfast:outer/inner`, and its payload."""

    path: str
    payload: int


def include() -> Path | None:
    """The folder with nvtx3/nvToolsExt.h, searched for where CMakeLists.txt does."""
    roots = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [Path(root) / "include" for root in (*roots, "/usr/local/cuda") if root]
    return next((f for f in folders if (f / "nvtx3" / "nvToolsExt.h").exists()), None)


def missing() -> str:
    """Why nothing can be recorded here, or nothing."""
    if sys.platform != "linux" or shutil.which("c++") is None:
        return "no Linux with a C++ compiler"
    return "" if include() else "no NVTX headers (of the CUDA toolkit)"


@functools.cache
def recorder() -> Path:
    """tests/native/nvtx_recorder.cpp, built once a process."""
    to = Path(tempfile.mkdtemp(prefix="marfast-nvtx-")) / "recorder.so"
    flags = ("-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-isystem", include())
    source = ROOT / "tests" / "native" / "nvtx_recorder.cpp"
    subprocess.run(["c++", *map(str, flags), str(source), "-o", str(to)], check=True)
    return to


def record(code: str) -> list[Seen]:
    """The ranges that `code` opens in a Python of its own, in their order; all must be closed."""
    log = recorder().with_suffix(".log")
    log.unlink(missing_ok=True)
    tool = {"NVTX_INJECTION64_PATH": str(recorder()), "MARFAST_TEST_RANGES": str(log)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **tool}, check=True)
    seen: list[Seen] = []
    opened: dict[tuple[str, str], list[str]] = {}  # by thread and domain
    for line in log.read_text().splitlines():
        what, thread, domain, *attributes = line.split("\t")
        stack = opened.setdefault((thread, domain), [])
        if what == "pop":
            stack.pop()
        else:
            name, payload = attributes
            stack.append(name)
            seen.append(Seen(f"{domain}:{'/'.join(stack)}", int(payload)))
    assert not any(opened.values()), opened
    return seen
