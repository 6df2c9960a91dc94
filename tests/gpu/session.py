"""All that has to be done on a machine with a GPU, in one go and without network: `make test-gpu`.

    python -m tests.gpu.session --out DIR [--budget SECONDS] [--only STEP ...] [--skip STEP ...]

Builds the CUDA kernels for the GPU that is there, finds out which backends are right, times them,
and runs profilers and sanitizers (tests/gpu/steps.py). A step has a time limit and ends as passed,
failed or not run, with the reason. All results go to DIR: session.json says how the steps ended,
log.txt has what they printed, and what they measured is written after every row, so that a session
that is cut off loses one. Exit status: 0 if all passed, 1 if one failed, 3 if none failed and one
was not run.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from marfast.bench.results import commit, write_rows
from tests.gpu.processes import run
from tests.gpu.rows import LOST
from tests.gpu.steps import Step, steps

TAIL = 2000  # characters of what a step printed
NOT_RUN = 3
RESTARTS = 8  # of a step whose process dies, or its device


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    step: str
    status: str  # "passed", "failed" or "not run"
    reason: str
    seconds: float
    printed: str


def outcome(step: Step, left: float, log: Path) -> Outcome:
    """Of the step, within its time and what is left."""
    if lacking := step.missing():
        return Outcome(
            step.name, "not run", f"there is no {lacking.removeprefix('a ')} here", 0, ""
        )
    if left < 1:
        return Outcome(step.name, "not run", "the time was up", 0, "")
    seconds, took = min(step.seconds, left), 0.0
    for _ in range(1 + RESTARTS * step.resumes):
        ended = run(step.command, seconds - took, log, step.environment)
        took += ended.seconds
        died = ended.status is not None and (ended.status == LOST or ended.status < 0)
        if not died or took + 1 > seconds:
            break
    status = "failed" if ended.reason else "passed"
    return Outcome(step.name, status, ended.reason, round(took, 1), ended.printed[-TAIL:])


def session(
    planned: list[Step], budget: float, out: Path, tell: Callable[[str], None] = print
) -> int:
    """Runs the steps within so many seconds, writes how they ended; the exit status."""
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    ended: list[Outcome] = []
    for step in planned:
        left = budget - (time.perf_counter() - start)
        ended.append(outcome(step, left, out / "log.txt"))
        last = ended[-1]
        reason = f", {last.reason}" if last.reason else ""
        tell(f"{last.step}: {last.status}{reason}, {last.seconds:.0f} s")
        rows = [asdict(one) for one in ended]
        write_rows(out / "session.json", rows, force=True, commit=commit())
    states = {one.status for one in ended}
    return 1 if "failed" in states else NOT_RUN if "not run" in states else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--budget", type=float, default=1800, metavar="SECONDS")
    parser.add_argument("--only", action="append", metavar="STEP", help="several times for several")
    parser.add_argument("--skip", action="append", default=[], metavar="STEP")
    options = parser.parse_args()
    known = steps(options.out.resolve())
    names = [step.name for step in known]
    for name in [*(options.only or []), *options.skip]:
        if name not in names:
            parser.error(f"{name!r} is no step; known are {', '.join(names)}")
    asked = set(options.only or names) - set(options.skip)
    # ended from outside, it ends its step's processes, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    planned = [step for step in known if step.name in asked]
    sys.exit(session(planned, options.budget, options.out))


if __name__ == "__main__":
    main()
