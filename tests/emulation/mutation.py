"""Wrong indices, strides, tails and operators: one at a time in csrc/cuda, each must be noticed.

`python -m tests.emulation.mutation [--count 60] [--seed 1]` compiles run_kernels.cpp with a change
in a kernel's source, runs its cases in the emulator (forward), and counts the changes that made one
fail. About 6 s a mutant. Those that survive are printed; KNOWN explains the ones that can't matter.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import build

SOURCES = (
    "attention.cuh",
    "ddpm_step.cuh",
    "epilogue.cuh",
    "lane_sum.cuh",
    "layer_norm_modulate.cuh",
    "linear_fp32.cuh",
    "linear_mma.cuh",
    "silu_sum.cuh",
    "tile.cuh",
)

OPERATORS = {
    " < ": " <= ",
    " >= ": " > ",
    " <= ": " < ",
    " + ": " - ",
    " - ": " + ",
    " * ": " + ",
} | {
    " / ": " * ",
    " % ": " / ",
    " && ": " || ",
    " == ": " != ",
    " += ": " = ",
}

KNOWN: dict[str, str] = {
    "if (step <= steps) {": "one more tile is copied, all zeros, and never read",
    "return {ceil_div(a.rows * a.width, 256), 1, 257, 0};": "the kernel takes its block's size",
    "const int count = left <= kDepth ? static_cast<int>(left) : kDepth;": "equal either way",
    "if constexpr (kCopy == 15) {": "element by element, the same",
    "uint32_t q_[kWidth / 15][4];": "as many",
    "__device__ void multiply(const Keys& keys, float (&score)[kKeys / 7][4]) const {": "as many",
    "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom >= 31 ? 32 : 16;": "none is 31",
    "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom > 32 ? 32 : 16;": "none is 32",
    "for (int r = 0; r < kRows; ++r) "
    "four(rows_[r] + d, sees_[r] > 0 ? head_dim_ - d : 1, q[r]);": "of position 0, and not used",
    "if (group + 7 * n >= head_dim_) break;": "zeros more",
    "uint32_t q_[kWidth * 16][4];": "the first are used",
    "static constexpr int kKeys = kRoom >= 65 ? 64 : kRoom >= 32 ? 32 : 16;": "none is 64",
    "static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom >= 33 ? 32 : 16;": "none is 32",
    "for (int i = 0; i < kKeys * kAcross / 127; ++i) {": "as many",
    "for (int n = 0; n < kWidth / 7; n += 2) {": "it stops at the head's dimension",
    "constexpr int kEach = 17 / static_cast<int>(sizeof(T)), kAcross = kWidth / kEach;": "as many",
    "ptx::cp_async_16(to.at(r, c), row + (there ? r * stride + c : 0), there ? 16 : 1);": (
        "a byte of padding, which meets zeros"
    ),
    "if (count > 1) *reinterpret_cast<uint32_t*>(to) = ptx::cvt_rn_x2(first, second, T{});": (
        "pairs are whole there"
    ),
}
"""Changed lines that compute the same, and why."""


class Mutant(NamedTuple):
    file: str
    line: int
    text: str  # the whole changed line

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text.strip()}"


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every change of one number by one, and of one operator, outside comments and directives."""
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        code = line.split("//")[0]
        if re.match(r"\s*(#|static_assert|template|using|namespace|.*__launch_bounds__)", code):
            continue
        for at in re.finditer(r"(?<![\w.\"])\d+(?![\w.])", code):
            for value in (int(at[0]) + 1, int(at[0]) - 1):
                if value >= 0:
                    found.append(
                        Mutant(file, number, code[: at.start()] + str(value) + code[at.end() :])
                    )
        for old, new in OPERATORS.items():
            for at in re.finditer(re.escape(old), code):
                found.append(Mutant(file, number, code[: at.start()] + new + code[at.end() :]))
    return found


def all_mutants() -> list[Mutant]:
    return [
        mutant
        for file in SOURCES
        for mutant in mutants_of(file, (build.CSRC / "cuda" / file).read_text())
    ]


def outcome(mutant: Mutant, folder: Path) -> str:
    """'caught', 'survived', or 'invalid' where it doesn't compile."""
    shutil.rmtree(folder / "cuda", ignore_errors=True)
    (folder / "cuda").mkdir()
    lines = (build.CSRC / "cuda" / mutant.file).read_text().splitlines()
    lines[mutant.line - 1] = mutant.text
    (folder / "cuda" / mutant.file).write_text("\n".join(lines) + "\n")
    try:
        program = build.link_program(
            build.HERE / "run_kernels.cpp", folder / "run_kernels", "-w", "-g0", kernels=folder
        )
    except RuntimeError:
        return "invalid"
    try:
        done = build.run(program, "check", "forward", timeout=30)
    except subprocess.TimeoutExpired:
        return "caught"
    lines = done.stdout.splitlines()
    well = done.returncode == 0 and lines and all(line.endswith("\tok") for line in lines)
    return "survived" if well else "caught"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=0, help="how many, drawn by chance; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    mutants = all_mutants()
    total = len(mutants)
    if options.count:
        mutants = random.Random(options.seed).sample(mutants, min(options.count, total))
    counts = {"caught": 0, "survived": 0, "invalid": 0, "equivalent": 0}
    with tempfile.TemporaryDirectory() as folder:
        for mutant in mutants:
            result = outcome(mutant, Path(folder))
            if result == "survived" and mutant.text.strip() in KNOWN:
                result = "equivalent"
            if result in ("survived", "equivalent"):
                print(result, mutant, flush=True)
            counts[result] += 1
            print(f"\r{counts}", end="", file=sys.stderr, flush=True)
    tried = counts["caught"] + counts["survived"]
    share = counts["caught"] / max(tried, 1)
    print(
        f"{counts} of {total} possible; caught {share:.1%} of those that change a result or compile"
    )
    sys.exit(share < 0.95)


if __name__ == "__main__":
    main()
