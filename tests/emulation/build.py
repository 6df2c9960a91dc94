"""Builds the emulator and what runs in it, with the compiler alone."""

import functools
import importlib.util
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pybind11

from tests import nvtx
from tests.limits import LONG_HANG

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
FLAGS = ("-std=c++17", "-g", "-fPIC", "-ffp-contract=off", *WARNINGS)
INCLUDES = tuple(f"-I{path}" for path in (HERE, CSRC, CSRC / "include"))
# Vectorised accesses would be wider than what the kernel says.
INSTRUMENTED = ("-O1", "-fsanitize=thread", "-fno-tree-vectorize", "-fno-omit-frame-pointer")

# A thread's own arrays are no memory that the emulator knows: an index past one ends the program.
BOUNDS = ("-fsanitize=bounds", "-fsanitize-undefined-trap-on-error")


def cannot_build() -> str:
    """Why the emulator can't be built here, or nothing."""
    if platform.system() != "Linux":
        return "the emulator needs Linux: mmap, dl_iterate_phdr, and GCC's thread instrumentation"
    return "" if shutil.which("c++") else "no C++ compiler"


def run(*command: object, timeout: float = LONG_HANG) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout)


def compile_object(source: Path, to: Path, *flags: str, includes: tuple[str, ...] = ()) -> None:
    """RuntimeError with the compiler's words if `source` doesn't compile."""
    done = run(
        "c++", *FLAGS, *flags, f"-I{HERE / 'include'}", *includes, *INCLUDES, "-c", source, "-o", to
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


@functools.cache
def emulator() -> Path:
    """emulator.o, built once a process."""
    return build_emulator(Path(tempfile.mkdtemp(prefix="marfast-emulator-")))


def build_emulator(folder: Path, *flags: str) -> Path:
    objects = [folder / f"{name}.o" for name in ("memory", "threads", "instructions", "cost")]
    for to in objects:
        compile_object(HERE / f"{to.stem}.cpp", to, "-O2", *flags)
    done = run("c++", "-r", "-nostdlib", *objects, "-o", folder / "emulator.o")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return folder / "emulator.o"


def link_program(
    source: Path, to: Path, *flags: str, kernels: Path = CSRC, machine: Path | None = None
) -> Path:
    """The program of `source`; headers in `kernels` go before those of csrc."""
    instrumented = to.with_suffix(".o")
    compile_object(source, instrumented, *INSTRUMENTED, *BOUNDS, *flags, includes=(f"-I{kernels}",))
    done = run("c++", "-rdynamic", machine or emulator(), instrumented, "-ldl", "-o", to)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return to


@functools.cache
def module() -> Any:
    """`marfast_emulation`: csrc/bindings/cuda.cpp over the emulator's launchers. About 30 s."""
    folder = emulator().parent
    python = (f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}")
    visible = ("-O1", "-fvisibility=hidden", "-DMARFAST_CUDA_MODULE=marfast_emulation")
    compile_object(HERE / "launchers.cpp", folder / "launchers.o", *INSTRUMENTED)
    ranges = ("-isystem", str(nvtx.include())) if nvtx.include() else ()
    compile_object(
        CSRC / "bindings" / "cuda.cpp", folder / "bindings.o", *visible, *ranges, includes=python
    )
    objects = [folder / f"{name}.o" for name in ("emulator", "launchers", "bindings")]
    to = folder / f"marfast_emulation{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = run("c++", "-shared", "-Wl,-Bsymbolic", *objects, "-ldl", "-o", to)
    if done.returncode:
        raise RuntimeError(done.stderr)
    spec = importlib.util.spec_from_file_location("marfast_emulation", to)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
