"""Compiles the GPU's kernels as CMakeLists.txt does, and reads what nvcc made of them.

`python -m tests.build.cuda_code` prints each variant's registers and shared memory.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tests.build.tree import ROOT
from tests.emulation import build
from tests.limits import LONG_HANG

SOURCE = ROOT / "csrc" / "cuda" / "kernels.cu"
FLAGS = (
    *("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true"),
    *(f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"),
)
(ARCHS,) = re.findall(r'MARFAST_CUDA_ARCHS "([\d;]+)"', (ROOT / "CMakeLists.txt").read_text())
SHIPPED = tuple(f"sm_{number}" for number in ARCHS.split(";"))
PTX = f"compute_{ARCHS.split(';')[-1]}"
LATER = "sm_120"
"""What a driver makes of the PTX that is shipped, where nvcc knows this architecture."""

MOST_SHARED = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, LATER: 99}
"""KiB of shared memory that a block can have."""


class Code(NamedTuple):
    """One variant of a kernel on one architecture."""

    registers: int
    stack: int  # bytes, as the next two
    spilled: int
    shared: int  # static
    instructions: Counter[str]  # of SASS, such as FFMA or HMMA.16816.F32; empty without cuobjdump


def nvcc() -> str | None:
    return shutil.which("nvcc")


def cuobjdump() -> str | None:
    """On PATH, or the one that triton brings."""
    triton = find_spec("triton")
    folders = triton.submodule_search_locations if triton else None
    theirs = Path(folders[0]) / "backends" / "nvidia" / "bin" / "cuobjdump" if folders else Path()
    return shutil.which("cuobjdump") or (str(theirs) if theirs.is_file() else None)


def output(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=LONG_HANG
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def readable(symbols: list[str]) -> list[str]:
    """Such as linear_mma<bfloat16, 2, 8, 16>."""
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True)
    names = re.sub(r"marfast::(cuda::)?|^void |\([^()]*\)$", "", done.stdout, flags=re.MULTILINE)
    return names.splitlines()


def disassembled(cubin: Path) -> dict[str, Counter[str]]:
    if (tool := cuobjdump()) is None:
        return {}
    kernels = re.split(r"Function : (\w+)", output(tool, "-sass", cubin))
    instruction = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)")
    return {
        symbol: Counter(instruction.findall(body))
        for symbol, body in zip(kernels[1::2], kernels[2::2], strict=True)
    }


def assembled(architecture: str, source: Path, folder: Path) -> dict[str, Code]:
    """By variant. `source` is kernels.cu or PTX."""
    cubin = folder / f"{architecture}.cubin"
    command = (nvcc(), *FLAGS, f"-arch={architecture}", "-Xptxas", "-v", "-cubin", "-o", cubin)
    said = output(*command, source)
    report = re.findall(
        r"Function properties for (\S+)\s+"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+"
        r"ptxas info\s+: Used (\d+) registers([^\n]*)",
        said,
    )
    instructions = disassembled(cubin)
    names = readable([symbol for symbol, *_ in report])
    return {
        name: Code(
            int(registers),
            int(stack),
            int(stores) + int(loads),
            int((re.findall(r"(\d+) bytes smem", rest) or [0])[0]),
            instructions.get(symbol, Counter()),
        )
        for name, (symbol, stack, stores, loads, registers, rest) in zip(names, report, strict=True)
    }


class Compiled(NamedTuple):
    code: dict[str, dict[str, Code]]  # by architecture and variant
    ptx: dict[str, str]  # by variant


@functools.cache
def compiled() -> Compiled:
    """Every variant, for every architecture."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as workers:
        folder = Path(name)
        jobs = {arch: workers.submit(assembled, arch, SOURCE, folder) for arch in SHIPPED}
        ptx = folder / "kernels.ptx"
        output(nvcc(), *FLAGS, f"-arch={PTX}", "-ptx", "-o", ptx, SOURCE)
        if LATER in output(nvcc(), "--list-gpu-code"):
            jobs[LATER] = workers.submit(assembled, LATER, ptx, folder)
        bodies = re.findall(r"\.entry (\w+)\((.*?)\n}", ptx.read_text(), re.DOTALL)
        names = readable([symbol for symbol, _ in bodies])
        return Compiled(
            {arch: job.result() for arch, job in jobs.items()},
            {name: body for name, (_, body) in zip(names, bodies, strict=True)},
        )


@functools.cache
def launched() -> dict[str, tuple[int, int]]:
    """By variant: threads of a block and the dynamic shared memory, bytes, that the launchers ask
    for, at most, over the emulator's cases."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("run_kernels", "run_attention", "run_ddpm_sample"):
            program = build.link_program(build.HERE / f"{name}.cpp", Path(folder) / name)
            lines = build.run(program, "shapes").stdout.splitlines()
            rows += [line.split("\t") for line in lines]
    names = readable([row[0] for row in rows])
    return {
        name: (int(threads), int(shared))
        for name, (_, threads, shared) in zip(names, rows, strict=True)
    }


def main() -> None:
    code, shapes = compiled().code, launched()
    print("| variant | shared memory, KiB | registers:", " | ".join(code), "|")
    print("| --- " * (2 + len(code)) + "|")
    for name, (_, shared) in sorted(shapes.items()):
        registers = " | ".join(str(variants[name].registers) for variants in code.values())
        print(f"| `{name}` | {shared / 1024:.1f} | {registers} |")


if __name__ == "__main__":
    main()
