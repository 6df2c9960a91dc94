"""Every measurement behind the README's figures, one part after another; then the README.

    python benchmarks/publish.py --original path/to/mar
    python benchmarks/publish.py --parts head,image --again

A part that was finished at this commit is not run again; an interrupted one starts anew. Without
--original the parts that need the original's code are left out, and it says so.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from marfast.benchmarking.results import commit
from marfast.ops import native

HERE = Path(__file__).parent
FINISHED = HERE.parent / "build" / "published"  # a file a part: the commit that it was run at
BENCH = ("-m", "marfast", "bench")
PARTS = {
    "head": (*BENCH, "head-b", "head-l", "head-h", "--steps", "10"),
    "image": (*BENCH, "image-b", "--num-iter", "64,256", "--rounds", "3"),
    "fashion-mnist": (*BENCH, "fashion-mnist", "--batch", "16", "--rounds", "5"),
    "vae": (str(HERE / "vae.py"),),
    "range-overhead": (str(HERE / "range_overhead.py"),),
    "drop-in": (str(HERE / "drop_in.py"),),
}
NEED_ORIGINAL = ("drop-in",)
TAKE_ORIGINAL = ("drop-in", "vae")


def finished(part: str) -> str | None:
    file = FINISHED / part
    return file.read_text() if file.exists() else None


def run(part: str, original: str | None, isa: str) -> None:
    command = [sys.executable, *PARTS[part]]
    if PARTS[part][: len(BENCH)] == BENCH:
        command += ["--out", str(HERE / "results" / f"{part}-{isa}.json")]
    if original and part in TAKE_ORIGINAL:
        command += ["--original", original]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=HERE.parent)
    FINISHED.mkdir(parents=True, exist_ok=True)
    (FINISHED / part).write_text(commit())
    print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", help="a checkout of LTH14/mar")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--again", action="store_true", help="run finished parts, too")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts: {unknown[0]}; allowed are {', '.join(PARTS)}")
    original = str(Path(options.original).resolve()) if options.original else None
    ok, reason = native.available()
    if not ok:
        raise SystemExit(f"no kernels to time: {reason}")
    for part in parts:
        if part in NEED_ORIGINAL and not original:
            print(f"{part}: left out, it needs --original")
        elif finished(part) == commit() and not options.again:
            print(f"{part}: finished at this commit")
        else:
            run(part, original, native.extension().isa())
    subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)


if __name__ == "__main__":
    main()
