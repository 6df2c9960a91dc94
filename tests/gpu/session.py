"""All that has to be done on a machine with a GPU, in one go and without network: `make test-gpu`.

    python -m tests.gpu.session [--seconds 540] [--out FILE]

Builds the CUDA kernels, runs the tests that need a GPU, the known answers under compute-sanitizer,
and the benchmarks. Each step ends as passed, failed or not run, with the reason; the steps and what
they printed last go to benchmarks/results/gpu-session.json. Exit status: 0 if all passed, 1 if one
failed, 3 if none failed and one was not run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from marfast.bench.results import commit, write_rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TAIL = 4000  # characters of what a step printed
NOT_RUN = 3


@dataclass(frozen=True)
class Step:
    """A command, and what the machine must have for it."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ("a CUDA device",)
    environment: tuple[tuple[str, str], ...] = ()


@dataclass
class Outcome:
    """How a step ended."""

    step: str
    status: str  # "passed", "failed" or "not run"
    reason: str
    seconds: float
    printed: str


def steps(python: str = sys.executable) -> list[Step]:
    """In order; a step may need what an earlier one built."""
    install = ("-m", "pip", "install", "--no-build-isolation", "--no-deps", "--editable", ".")
    build = (("MARFAST_BUILD_CUDA", "1"),)
    answers = (python, "-m", "tests.gpu.known_answers")
    sanitizers = [
        Step(
            f"compute-sanitizer {tool}",
            ("compute-sanitizer", f"--tool={tool}", "--error-exitcode=9", *answers),
            ("a CUDA device", "compute-sanitizer"),
        )
        for tool in ("memcheck", "racecheck", "synccheck")
    ]
    bench = (python, "-m", "marfast", "bench", "head-b", "--device=cuda", "--rows=2,8,32,128,512")
    attention = (python, "-m", "benchmarks.studies.attention")
    return [
        Step("build", (python, *install), ("nvcc",), build),
        Step("known answers", answers),
        Step("tests", (python, "-m", "pytest", "-m", "gpu", "-q")),
        *sanitizers,
        Step("benchmarks", (*bench, "--compile", "--force", f"--out={RESULTS / 'head-gpu.json'}")),
        Step("benchmarks of attention", (*attention, f"--out={RESULTS / 'attention-gpu.json'}")),
    ]


def missing(step: Step) -> str:
    """What this machine lacks for it."""
    for need in step.needs:
        here = torch.cuda.is_available() if need == "a CUDA device" else shutil.which(need)
        if not here:
            return f"there is no {need.removeprefix('a ')} here"
    return ""


def run(step: Step, seconds: float) -> Outcome:
    """The step, or why it is not run."""
    if reason := missing(step):
        return Outcome(step.name, "not run", reason, 0.0, "")
    if seconds <= 0:
        return Outcome(step.name, "not run", "the time was up", 0.0, "")
    start = time.perf_counter()
    try:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            env={**os.environ, **dict(step.environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        printed, status = done.stdout, done.returncode
        reason = f"exit status {status}" if status else ""
    except subprocess.TimeoutExpired as error:
        printed = (error.stdout or b"").decode(errors="replace")
        reason = f"it took more than the {seconds:.0f} s that were left"
    took = round(time.perf_counter() - start, 1)
    return Outcome(step.name, "failed" if reason else "passed", reason, took, printed[-TAIL:])


def session(
    planned: list[Step], seconds: float, out: Path, tell: Callable[[str], None] = print
) -> int:
    """Runs the steps within so many seconds, writes how they ended; the exit status."""
    start = time.perf_counter()
    ended: list[Outcome] = []
    for step in planned:
        ended.append(run(step, seconds - (time.perf_counter() - start)))
        last = ended[-1]
        reason = f", {last.reason}" if last.reason else ""
        tell(f"{last.step}: {last.status}{reason}, {last.seconds:.0f} s")
        write_rows(out, [asdict(outcome) for outcome in ended], force=True, commit=commit())
    states = {outcome.status for outcome in ended}
    return 1 if "failed" in states else NOT_RUN if "not run" in states else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu-session.json")
    options = parser.parse_args()
    sys.exit(session(steps(), options.seconds, options.out))


if __name__ == "__main__":
    main()
