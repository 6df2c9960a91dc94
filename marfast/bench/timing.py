"""Timing on a machine that is not ours alone: in turn, in one process, medians and percentiles.

A fixed product of matrices is timed in every round, too. Its median beside the best that it reached
says how busy others kept the machine meanwhile.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Run = Callable[[], object]

AT_MOST_BUSY = 0.1
"""The share of the machine that others may take before a timing is worth a warning."""

_best_probe = float("inf")


@dataclass(frozen=True)
class Timing:
    """Of some runs that took turns."""

    seconds: dict[str, npt.NDArray[np.float64]]  # of each round
    busy: float  # share of the machine that others took: 0 where the probe was at its best

    def percentiles(self, name: str, scale: float = 1.0) -> list[float]:
        """p20, p50 and p80 of the rounds."""
        return percentiles(self.seconds[name], scale)

    def ratio(self, baseline: str, name: str) -> float:
        """How many times faster `name` is: the median of the rounds' ratios."""
        return round(float(np.median(self.seconds[baseline] / self.seconds[name])), 3)


def joined(timings: Sequence[Timing]) -> Timing:
    """Of the same runs, one timing after the other; as disturbed as the worst."""
    return Timing(
        {
            name: np.concatenate([timing.seconds[name] for timing in timings])
            for name in timings[0].seconds
        },
        max(timing.busy for timing in timings),
    )


def percentiles(seconds: npt.NDArray[np.float64], scale: float = 1.0) -> list[float]:
    """p20, p50 and p80."""
    return [round(float(p) * scale, 6) for p in np.percentile(seconds, (20, 50, 80))]


def seconds(function: Run) -> float:
    """Of one call, until the device is done."""
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def repeated(run: Run, at_least: float) -> tuple[Run, int]:
    """As many runs in one as take so many seconds, and how many these are."""
    took = seconds(run)
    if took < at_least:  # the first run warms up
        took = seconds(run)
    count = max(1, round(at_least / took))

    def several() -> None:
        for _ in range(count):
            run()

    return several, count


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _probe(matrix: torch.Tensor) -> float:
    global _best_probe
    took = min(seconds(lambda: torch.mm(matrix, matrix)) for _ in range(3))
    _best_probe = min(_best_probe, took)
    return took


def in_turn(
    runs: Mapping[str, Run], rounds: int, report: Callable[[str], None] | None = None
) -> Timing:
    """So many runs of each, one after the other; the order turns round by round, and nobody's first
    run counts. `report` is told who runs."""
    told = report or (lambda who: None)
    matrix = torch.randn(512, 512)
    for name, run in runs.items():
        told(f"{name}, warming up")
        run()
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    probes = []
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            told(f"{name}, round {i + 1} of {rounds}")
            times[name].append(seconds(runs[name]))
        probes.append(_probe(matrix))
    busy = 1 - _best_probe / float(np.median(probes))
    return Timing({name: np.array(t) for name, t in times.items()}, round(busy, 3))
