"""Every measurement behind docs/performance.md's figures, one part after another; then the tables
and pictures made from them.

    python -m benchmarks.studies.publish --original path/to/mar
    python -m benchmarks.studies.publish --parts head,image --again

A part that was finished at this commit is not run again; an interrupted one starts anew. Without
--original the parts that need the original's code are left out, and it says so.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.studies import BUILD, RESULTS, ROOT, instruction_set
from marfast.bench.results import commit

FINISHED = BUILD / "published"  # a file a part: the commit that it was run at


class Part(NamedTuple):
    """A module and its arguments."""

    command: tuple[str, ...]
    original: str = "not taken"  # or "taken", "needed"

    @property
    def is_bench(self) -> bool:
        """`marfast bench`, which is told where to write."""
        return self.command[0] == "marfast"


def bench(*arguments: str) -> Part:
    return Part(("marfast", "bench", *arguments, "--compile", "--force"), "taken")


def study(name: str, original: str = "not taken") -> Part:
    return Part((f"benchmarks.studies.{name}",), original)


PARTS = {
    "head": bench("head-b", "head-l", "head-h", "--steps", "10"),
    "image": bench("image-b", "--num-iter", "64,256", "--rounds", "3"),
    "fashion-mnist": bench("fashion-mnist", "--batch", "1,4,16,64,256", "--rounds", "5"),
    "scaling": study("scaling"),
    "transformers": study("transformers"),
    "roofline": study("roofline"),
    "vae": study("vae", "taken"),
    "drop-in": study("drop_in", "needed"),
    "training": study("training", "needed"),
}


def finished(name: str) -> str | None:
    """The commit that the part was last run at."""
    file = FINISHED / name
    return file.read_text() if file.exists() else None


def run(name: str, original: Path | None) -> bool:
    """Whether the part succeeded."""
    part = PARTS[name]
    command = [sys.executable, "-m", *part.command]
    if part.is_bench:
        command += ["--out", str(RESULTS / f"{name}-{instruction_set()}.json")]
    if original and part.original != "not taken":
        command += ["--original", str(original)]
    start = time.perf_counter()
    ok = subprocess.run(command, cwd=ROOT).returncode == 0
    if ok:
        FINISHED.mkdir(parents=True, exist_ok=True)
        (FINISHED / name).write_text(commit())
    took = time.perf_counter() - start
    print(f"{name}: {'' if ok else 'failed after '}{took:.0f} s", flush=True)
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, help="a checkout of LTH14/mar")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--again", action="store_true", help="run finished parts, too")
    options = parser.parse_args()
    names = options.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: {unknown[0]}; allowed are {', '.join(PARTS)}")
    original = options.original and options.original.resolve()
    instruction_set()
    failed = []
    for name in names:
        if PARTS[name].original == "needed" and not original:
            print(f"{name}: left out, it needs --original")
        elif finished(name) == commit() and not options.again:
            print(f"{name}: finished at this commit")
        elif not run(name, original):
            failed.append(name)
    for name in ("pictures", "tables"):  # tables name the pictures
        subprocess.run([sys.executable, "-m", f"benchmarks.studies.{name}"], cwd=ROOT, check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
