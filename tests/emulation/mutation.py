"""Wrong indices, strides, tails, operators and operands: one at a time in csrc/cuda, each must be
noticed.

`python -m tests.emulation.mutation [SOURCE ...] [--count 60] [--seed 1] [--workers 2]` compiles
the program of a kernel's source with a change in that, runs it in the emulator, and counts the
changes that it notices. Survivors are printed; EQUIVALENT explains the ones that can't matter.
"""

import argparse
import functools
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.limits import MUTANT_HANG

from . import build


class Program(NamedTuple):
    """What a source's mutants are compiled into, and how to tell that it goes well."""

    source: str
    flags: tuple[str, ...]
    is_right: Callable[[Path], bool]


def kernels_are_right(program: Path) -> bool:
    return build.run(program, "first", "forward", timeout=MUTANT_HANG).returncode == 0


def cases(op: str) -> Program:
    return Program("run_kernels.cpp", (f'-DMARFAST_ONLY="{op}"',), kernels_are_right)


SAMPLER = Program("run_ddpm_sample.cpp", (), kernels_are_right)

ATTENTION = Program("run_attention.cpp", (), kernels_are_right)

SOURCES = {
    "attention.cuh": ATTENTION,
    "attention_products.cuh": ATTENTION,
    "ddpm_step.cuh": cases("ddpm_step"),
    "epilogue.cuh": cases("linear"),
    "linear_epilogue.cuh": cases("linear_epilogue"),
    "lane_sum.cuh": cases("layer_norm_modulate"),
    "layer_norm_modulate.cuh": cases("layer_norm_modulate"),
    "linear_fp32.cuh": cases("linear"),
    "linear_mma.cuh": cases("linear"),
    "operand.cuh": cases("layer_norm_modulate"),
    "silu_sum.cuh": cases("silu_sum"),
    "tile.cuh": cases("linear"),
    "grid_barrier.cuh": cases("grid_barrier"),
    "ddpm_sample.cuh": SAMPLER,
    "row_norm.cuh": SAMPLER,
    "sample_products.cuh": SAMPLER,
}

OPERATORS = {
    " < ": " <= ",
    " >= ": " > ",
    " <= ": " < ",
    " + ": " - ",
    " - ": " + ",
    " * ": " + ",
    " / ": " * ",
    " % ": " / ",
    " && ": " || ",
    " == ": " != ",
    " += ": " = ",
}

SKIPPED = re.compile(r'\s*(#|"|static_assert|template|using|namespace|.*__launch_bounds__)')
GROUP = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
OPERAND = rf"(?:[\w.:]+(?:\{{[^{{}}]*\}}|\[[^][]*\]|{GROUP})*|{GROUP})"
SWAPPED = (
    rf"(?<![\w.:\])}}])({OPERAND})( (?:[-/%<]|<=|>=|>) )({OPERAND})",
    rf"(?<=\? )({OPERAND})( : )({OPERAND})",
    # Neighbours in a list of arguments; the first two of an fma may be swapped.
    rf"(?<=[({{])(?<!fma\()({OPERAND})(, )({OPERAND})(?=[,)}}])",
    rf"(?<=, )({OPERAND})(, )({OPERAND})(?=[,)}}])",
)

EQUIVALENT: dict[str, tuple[str, ...]] = {
    "memory that nothing uses": (
        "return {ceil_div(a.tokens * a.channels, 256), 1, 256, 1};",
        "return {ceil_div(a.rows * a.width, 256), 1, 256, 1};",
        "inline LaunchShape shape_of(const NormModulate& a) "
        "{ return {ceil_div(a.rows, 4), 1, 128, 1}; }",
        "static constexpr int kDepth = 32, kChain = 8, kStages = 3, kThreads = 128;",
        "Lane total[kRows][3] = {}, chain[kRows][2] = {};",
        "Lane total[kRows][2] = {}, chain[kRows][3] = {};",
        "return {static_cast<uint32_t>(a.rows) * ceil_div(a.outputs, kOutputs), 1, kThreads, 1};",
        "uint32_t q_[kWidth / 15][4];",
        "uint32_t q_[kWidth * 16][4];",
        "__device__ void multiply(const Keys& keys, float (&score)[kKeys / 7][4]) const {",
    ),
    "one more tile is copied, all zeros, and never read": ("if (step <= steps) {",),
    "the same number": (
        "static constexpr int kPitch = kDepth + 17 / static_cast<int>(sizeof(T));",
        "const int count = left <= kDepth ? static_cast<int>(left) : kDepth;",
        "const int across = left <= 0 ? 0 : left <= kEach ? static_cast<int>(left) : kEach;",
        "const int across = left < 0 ? 0 : left < kEach ? static_cast<int>(left) : kEach;",
        "const int down = rows <= kRows ? static_cast<int>(rows) : kRows;",
        "for (; k + 4 < count; k += 4) add(k, 4);",
        "const Lane centred = mean - Lane::load(x + j);",  # it is squared
        "const int64_t end = first + kOutputs <= a.outputs ? first + kOutputs : a.outputs;",
        # tiles have room for none of these numbers of keys
        "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom >= 31 ? 32 : 16;",
        "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom > 32 ? 32 : 16;",
        "static constexpr int kKeys = kRoom >= 65 ? 64 : kRoom >= 32 ? 32 : 16;",
        "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom >= 33 ? 32 : 16;",
        "for (int i = 0; i < kKeys * kAcross / 127; ++i) {",
        "static constexpr int kRoom = (49 << 10) / (4 * Tile<T, 1, kWidth>::kBytes);",
        "for (int k = 0; k < kWidth / 15; ++k) {",
        "for (int k = 0; k <= kWidth / 16; ++k) {",
        "for (int n = 0; n < kKeys / 9; n += 2) {",
        "high[r] = fmaxf(score[n][i], high[r]);",
        "constexpr int kEach = 17 / static_cast<int>(sizeof(T)), kAcross = kWidth / kEach;",
    ),
    "slower, and nothing else": (
        "static constexpr int kDepth = 32, kStages = 2, kThreads = 128;",
        "ptx::cp_async_wait_group<kStages - 3>();",
        # element by element: tests/build/test_cuda_code.py misses LDGSTS
        "} else if constexpr (kCopy == 5) {",
        "} else if constexpr (kCopy == 3) {",
        "ptx::nanosleep(21);",
        "ptx::nanosleep(19);",
        "if constexpr (kCopy == 15) {",
    ),
    "another size of a block's share": (
        "static constexpr int kOutputs = 1025, kThreads = 256;",
        "static constexpr int kOutputs = 1023, kThreads = 256;",
        "static constexpr int kOutputs = 1024, kThreads = 257;",
        "static constexpr int kOutputs = 1024, kThreads = 255;",
    ),
    "ldmatrix.x2 reads no address of lanes 16 and up": (
        "ptx::ldmatrix_x2(column, rows.at(8 * n + lane % 8, k + lane / 8 % 3 * 8));",
    ),
    "zeros, or what is not used, more": (
        "for (int r = 0; r < kRows; ++r) "
        "four(rows_[r] + d, sees_[r] > 0 ? head_dim_ - d : 1, q[r]);",
        "if (group + 7 * n >= head_dim_) break;",
        "if (7 * n >= head_dim_) break;",
        "for (int n = 0; n < kWidth / 7; n += 2) {",
        "ptx::cp_async_16(to.at(r, c), row + (there ? r * stride + c : 0), there ? 16 : 1);",
        "if (count > 1) *reinterpret_cast<uint32_t*>(to) = ptx::cvt_rn_x2(first, second, T{});",
    ),
    "any thread of the block may be the one": ("if (threadIdx.x == 1) {",),
    "whatever isn't 0 is true": ("return 2;",),
}
"""Changed lines that can't be noticed, by why."""

KNOWN = {line for lines in EQUIVALENT.values() for line in lines}


class Mutant(NamedTuple):
    file: str
    line: int
    text: str  # the whole changed line

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text.strip()}"


def changes(code: str) -> Iterator[str]:
    """A line's changes of one number by one, of one operator, of two operands' order."""
    for at in re.finditer(r"(?<![\w.\"])\d+(?![\w.])", code):
        for value in (int(at[0]) + 1, int(at[0]) - 1):
            if value >= 0:
                yield code[: at.start()] + str(value) + code[at.end() :]
    for old, new in OPERATORS.items():
        for at in re.finditer(re.escape(old), code):
            yield code[: at.start()] + new + code[at.end() :]
    for pattern in SWAPPED:
        for at in re.finditer(pattern, code):
            if at[1] != at[3]:
                yield code[: at.start()] + at[3] + at[2] + at[1] + code[at.end() :]


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every change outside comments, directives and declarations."""
    found = {}
    for number, line in enumerate(source.splitlines(), 1):
        code = line.split("//")[0].rstrip()
        if not SKIPPED.match(code):
            found |= {Mutant(file, number, text): None for text in changes(code)}
    return list(found)


def all_mutants(files: list[str]) -> list[Mutant]:
    return [
        mutant
        for file in files
        for mutant in mutants_of(file, (build.CSRC / "cuda" / file).read_text())
    ]


HEADERS = ("chrono", "cmath", "functional", "map", "string", "string_view", "vector", "emulator.h")
FLAGS = (*build.INSTRUMENTED, "-w", "-g0", "-O0")


@functools.cache
def precompiled() -> Path:
    """The headers that no mutant changes."""
    header = build.emulator().parent / "unchanged.h"
    header.write_text("".join(f"#include <{name}>\n" for name in HEADERS))
    build.compile_object(header, header.with_suffix(".h.gch"), "-x", "c++-header", *FLAGS)
    return header


def link(program: Program, folder: Path) -> Path:
    """Headers in `folder` go before those of csrc."""
    return build.link_program(
        build.HERE / program.source,
        folder / "program",
        *("-include", str(precompiled()), *FLAGS, *program.flags),
        kernels=folder,
    )


def outcome(mutant: Mutant, folder: Path) -> str:
    """'caught', 'survived', or 'invalid' where it doesn't compile."""
    lines = (build.CSRC / "cuda" / mutant.file).read_text().splitlines()
    lines[mutant.line - 1] = mutant.text
    (folder / "cuda").mkdir()
    (folder / "cuda" / mutant.file).write_text("\n".join(lines) + "\n")
    program = SOURCES[mutant.file]
    try:
        linked = link(program, folder)
    except RuntimeError:
        return "invalid"
    try:
        return "survived" if program.is_right(linked) else "caught"
    except subprocess.TimeoutExpired:
        return "caught"


def judged(mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory() as folder:
        result = outcome(mutant, Path(folder))
    return "equivalent" if result == "survived" and mutant.text.strip() in KNOWN else result


RESULTS = ("caught", "survived", "equivalent", "invalid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="such as tile.cuh; none: all")
    parser.add_argument("--count", type=int, default=0, help="how many, drawn by chance; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    mutants = all_mutants(options.sources or list(SOURCES))
    if options.count:
        mutants = random.Random(options.seed).sample(mutants, min(options.count, len(mutants)))
    start = time.perf_counter()
    for program in {SOURCES[mutant.file] for mutant in mutants}:
        with tempfile.TemporaryDirectory() as folder:
            if not program.is_right(link(program, Path(folder))):
                sys.exit(f"{' '.join((program.source, *program.flags))} fails without any change")
    counts: Counter[tuple[str, str]] = Counter()
    with ThreadPoolExecutor(options.workers) as workers:
        for mutant, result in zip(mutants, workers.map(judged, mutants), strict=True):
            counts[mutant.file, result] += 1
            if result in ("survived", "equivalent"):
                print(result, mutant, flush=True)
            print(f"\r{counts.total()} of {len(mutants)}", end="", file=sys.stderr, flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")
    print("| source | mutants |", " | ".join(RESULTS), "|")
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        row = [counts[file, result] for result in RESULTS]
        print(f"| {file} | {sum(row)} |", " | ".join(map(str, row)), "|")
    caught, survived, *_ = totals = [
        sum(n for key, n in counts.items() if key[1] == result) for result in RESULTS
    ]
    print(f"| all | {sum(totals)} |", " | ".join(map(str, totals)), "|")
    share = caught / max(caught + survived, 1)
    print(f"{share:.1%} of those that compile and change a result are caught")
    sys.exit(share < 0.95)


if __name__ == "__main__":
    main()
