"""Builds the emulator and what runs in it, with the compiler alone."""

import functools
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ("-std=c++17", "-g", "-fPIC", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
INCLUDES = tuple(f"-I{path}" for path in (HERE, HERE / "include", CSRC, CSRC / "include"))
# Vectorised accesses would be wider than what the kernel says.
INSTRUMENTED = ("-O1", "-fsanitize=thread", "-fno-tree-vectorize", "-fno-omit-frame-pointer")


def cannot_build() -> str:
    """Why the emulator can't be built here, or nothing."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the emulator needs x86-64 Linux"
    return "" if shutil.which("c++") else "no C++ compiler"


def run(*command: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout)


def compile_object(source: Path, to: Path, *flags: str, includes: tuple[str, ...] = ()) -> None:
    """RuntimeError with the compiler's words if `source` doesn't compile."""
    done = run("c++", *FLAGS, *flags, *includes, *INCLUDES, "-c", source, "-o", to)
    if done.returncode:
        raise RuntimeError(done.stderr)


@functools.cache
def emulator() -> Path:
    """emulator.o, built once a process."""
    folder = Path(tempfile.mkdtemp(prefix="marfast-emulator-"))
    compile_object(HERE / "emulator.cpp", folder / "emulator.o", "-O2")
    return folder / "emulator.o"


def link_program(source: Path, to: Path, kernels: Path = HERE) -> Path:
    """The program of `source`, whose kernels may lie in another folder than ours."""
    instrumented = to.with_suffix(".o")
    compile_object(source, instrumented, *INSTRUMENTED, includes=(f"-I{kernels}",))
    done = run("c++", emulator(), instrumented, "-ldl", "-o", to)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return to
