"""Every measurement behind the README's and docs/performance.md's figures, one part after another;
then their tables and pictures.

    python benchmarks/publish.py --original path/to/mar
    python benchmarks/publish.py --parts head,image --again
    python benchmarks/publish.py --quick                 # tries the programs, into build/

A part that was finished at this commit is not run again; an interrupted one starts anew. Without
--original the parts that need the original's code are left out, and it says so.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from marfast.bench.results import commit
from marfast.ops import native

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
FINISHED = BUILD / "published"  # a file a part: the commit that it was run at


class Part(NamedTuple):
    """A program of this folder with its arguments, or `marfast bench`'s."""

    command: tuple[str, ...]
    quick: tuple[str, ...] | None = None  # instead; None: it has no quick settings
    takes_original: bool = False
    needs_original: bool = False


def bench(*arguments: str) -> tuple[str, ...]:
    return ("-m", "marfast", "bench", *arguments)


def program(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(HERE / name), *arguments)


HEADS = bench("head-b", "head-l", "head-h", "--steps", "10", "--compile")
IMAGE = bench("image-b", "--num-iter", "64,256", "--rounds", "3", "--compile")
FASHION = bench("fashion-mnist", "--batch", "1,4,16,64,256", "--rounds", "5", "--compile")
QUICK = ("--rounds", "2", "--steps", "4")
PARTS = {
    "head": Part(HEADS, bench("head-b", "--rows", "2", *QUICK), takes_original=True),
    "image": Part(
        IMAGE, bench("image-b", "--num-iter", "64", "--timed", "1", *QUICK), takes_original=True
    ),
    "fashion-mnist": Part(
        FASHION, bench("fashion-mnist", "--batch", "1,2", *QUICK), takes_original=True
    ),
    "scaling": Part(program("scaling.py"), program("scaling.py", "--quick")),
    "roofline": Part(program("roofline.py"), program("roofline.py", "--quick")),
    "five-runs": Part(program("five_runs.py")),
    "vae": Part(program("vae.py"), takes_original=True),
    "range-overhead": Part(program("range_overhead.py")),
    "drop-in": Part(program("drop_in.py"), takes_original=True, needs_original=True),
}


def finished(name: str) -> str | None:
    file = FINISHED / name
    return file.read_text() if file.exists() else None


def run(name: str, original: str | None, isa: str, quick: bool) -> bool:
    """Whether the part succeeded."""
    part = PARTS[name]
    given = part.quick if quick else part.command
    assert given is not None
    command = [sys.executable, *given]
    if given[:3] == bench():
        folder = BUILD if quick else HERE / "results"
        command += ["--out", str(folder / f"{name}-{isa}.json")]
    if original and part.takes_original:
        command += ["--original", original]
    start = time.perf_counter()
    ok = subprocess.run(command, cwd=HERE.parent).returncode == 0
    if ok and not quick:
        FINISHED.mkdir(parents=True, exist_ok=True)
        (FINISHED / name).write_text(commit())
    took = time.perf_counter() - start
    print(f"{name}: {'' if ok else 'failed after '}{took:.0f} s", flush=True)
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", help="a checkout of LTH14/mar")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--again", action="store_true", help="run finished parts, too")
    parser.add_argument("--quick", action="store_true", help="few and short runs, into build/")
    options = parser.parse_args()
    names = options.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: {unknown[0]}; allowed are {', '.join(PARTS)}")
    original = str(Path(options.original).resolve()) if options.original else None
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")
    failed = []
    for name in names:
        if PARTS[name].needs_original and not original:
            print(f"{name}: left out, it needs --original")
        elif options.quick and PARTS[name].quick is None:
            print(f"{name}: left out, it has no quick settings")
        elif finished(name) == commit() and not (options.again or options.quick):
            print(f"{name}: finished at this commit")
        elif not run(name, original, native.extension().isa(), options.quick):
            failed.append(name)
    pictures = [sys.executable, str(HERE / "pictures.py")]
    if options.quick:
        pictures += ["--results", str(BUILD), "--out", str(BUILD / "pictures")]
    subprocess.run(pictures, check=True)
    if not options.quick:  # they name the pictures
        subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
