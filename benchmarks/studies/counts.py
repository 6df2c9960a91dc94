"""Work as counts, which no busy machine blurs: against the committed figures, or to commit.

    python -m benchmarks.studies.counts              # both kinds; exit status 1 out of range
    python -m benchmarks.studies.counts --update     # rewrites benchmarks/results/counts.json
    python -m benchmarks.studies.counts instructions

operators: calls that torch's profiler sees, nested ones included, in a `generate` of the embedded
model and in `sample_tokens` of an accelerated module. instructions: those of the head's C++ driver
(`ddpm_sample`, AVX2, one thread) under callgrind. Figures are kept by torch's version and by the
compiler's; without any for this one, the kind is left out, with the reason (exit status 77 if
nothing else was counted). docs/profiling.md.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.studies import BUILD, RESULTS, ROOT

FILE = RESULTS / "counts.json"
PROGRAM = BUILD / "counts"
RANGE = {"operators": 0.01, "instructions": 0.03}
LEFT_OUT = 77

CASES = {  # width, depth, rows, steps, weights
    "w 256, d 3, R 2": (256, 3, 2, 2, "f32"),
    "w 256, d 3, R 8": (256, 3, 8, 2, "f32"),
    "w 256, d 3, R 32": (256, 3, 32, 2, "f32"),
    "w 256, d 3, R 8, bf16": (256, 3, 8, 2, "bf16"),
    "MAR-B, R 2": (1024, 6, 2, 2, "f32"),
}

PRODUCTS = ("tile", "block_rows", "tall_linear")  # csrc/cpu/tile.h and what they are inlined in

Figures = dict[str, int]


class Unavailable(Exception):
    """Why this can't be counted here."""


def operators() -> tuple[str, Callable[[], Figures]]:
    """The version that the figures belong to, and what counts them."""
    import torch

    import marfast
    from marfast.ops.runtime import cpu

    ok, reason = cpu.is_built()
    if not ok:
        raise Unavailable(reason)
    torch.set_num_threads(1)

    def calls(function: Callable[[], object]) -> int:
        function()  # packs the weights
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            function()
        return sum(event.count for event in profiled.key_averages() if "::" in event.key)

    def count() -> Figures:
        pipeline = marfast.load("fashion-mnist")
        generate = partial(pipeline.generate, [3], seed=0, num_iter=4, steps=5)
        figures = {"generate, 4 iterations": calls(generate)}
        module = marfast.accelerate(pipeline.model.module)
        sample = partial(module.sample_tokens, 1, num_iter=4, cfg=2.9, labels=torch.tensor([3]))
        return figures | {"accelerated sample_tokens, 4 iterations": calls(sample)}

    return f"torch {torch.__version__.partition('+')[0]}", count


def instructions() -> tuple[str, Callable[[], Figures]]:
    """As `operators`."""
    if shutil.which("valgrind") is None:
        raise Unavailable("valgrind is not on PATH")
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or " avx2 " not in cpuinfo.read_text():
        raise Unavailable("no Linux on a processor with AVX2")
    PROGRAM.mkdir(parents=True, exist_ok=True)
    cmake = (sys.executable, "-m", "cmake")
    options = ("-GNinja", "-DMARFAST_BUILD=driver", "-DCMAKE_CXX_FLAGS=-g")
    run(*cmake, "-S", ROOT, "-B", PROGRAM, *options)
    run(*cmake, "--build", PROGRAM, "--target", "counts")
    compiler = run(PROGRAM / "counts").stdout.strip()

    def count() -> Figures:
        return {k: n for name, case in CASES.items() for k, n in _instructions(name, *case).items()}

    return compiler, count


def _instructions(name: str, *case: object) -> Figures:
    """Of the products, which are nearly all, and of the rest, which they would hide."""
    file = profile_of(name)
    run(
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={file}"),
        *("--collect-atstart=no", "--toggle-collect=counted", PROGRAM / "counts", *case),
    )
    function, names, inclusive = "", dict[str, str](), False
    figures = {f"{name}: products": 0, f"{name}: the rest": 0}
    for line in file.read_text().splitlines():
        if found := re.fullmatch(r"(c?)fn=(\(\d+\))(?: (.*))?", line):  # named the first time
            called = names.setdefault(found[2], found[3])
            function = function if found[1] else called
        elif found := re.fullmatch(r"[-+*\d]\d* (\d+)", line):
            product = any(f"marfast::{part}<" in function for part in PRODUCTS)
            if not inclusive:  # of a callee
                figures[f"{name}: {'products' if product else 'the rest'}"] += int(found[1])
        inclusive = line.startswith("calls=")
    return figures


def profile_of(name: str) -> Path:
    """Where callgrind leaves what it saw in a case."""
    return PROGRAM / f"callgrind.{re.sub('[^a-zA-Z0-9]+', '-', name)}.out"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done


KINDS = {"operators": operators, "instructions": instructions}


def compare(kind: str, committed: Figures, now: Figures) -> bool:
    """Prints each figure beside the committed one; whether all are within the range."""
    well = True
    for name in committed | now:
        old, new = committed.get(name), now.get(name)
        if old is None or new is None:
            change, ok = "a case of one side alone", False
        else:
            change, ok = (
                f"{100 * (new - old) / max(1, old):+.2f} %",
                abs(new - old) <= RANGE[kind] * old,
            )
        print(f"{kind}: {name}: {new}, committed {old}: {change}{'' if ok else ' OUT OF RANGE'}")
        if not ok and kind == "instructions":
            profile = profile_of(name.rpartition(":")[0])
            print(f"  by source line: callgrind_annotate --auto=yes '{profile}'")
        well &= ok
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="operators|instructions")
    parser.add_argument("--update", action="store_true", help="rewrite the committed figures")
    options = parser.parse_args()
    if unknown := {*options.kinds} - {*KINDS}:
        parser.error(f"{', '.join(unknown)}; allowed: {', '.join(KINDS)}")
    figures = json.loads(FILE.read_text()) if FILE.exists() else {}
    counted, well = False, True
    for kind in options.kinds or KINDS:
        committed = figures.setdefault(kind, {})
        try:
            version, count = KINDS[kind]()
            if version not in committed and not options.update:
                raise Unavailable(
                    f"no figures of {version}, only of {', '.join(committed) or 'nothing'}; counts "
                    "of two versions can't be compared; --update adds this one's"
                )
        except Unavailable as reason:
            print(f"{kind}: not counted: {reason}")
            continue
        now, counted = count(), True
        if options.update:
            committed[version] = now
        else:
            well &= compare(kind, committed[version], now)
    if options.update:
        FILE.write_text(json.dumps(figures, indent=1) + "\n")
    elif not well:
        print(
            "Not what benchmarks/results/counts.json says. If that is meant: `make counts`, and "
            "commit the file with what changed it, saying why."
        )
    sys.exit(LEFT_OUT if not counted else not well)


if __name__ == "__main__":
    main()
