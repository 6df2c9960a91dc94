"""Timing on a machine that is not ours alone: in turn, in one process, medians and percentiles.

A fixed product of matrices is timed in every round, too. Its median beside the best that it reached
says how busy others kept the machine meanwhile.
"""

import functools
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Run = Callable[[], torch.Tensor]

_best_probe = float("inf")


@dataclass(frozen=True)
class Timing:
    seconds: dict[str, np.ndarray]  # of each round
    busy: float  # share of the machine that others took: 0 where the probe was at its best

    def percentiles(self, name: str, scale: float = 1.0) -> list[float]:
        return [round(float(p) * scale, 5) for p in np.percentile(self.seconds[name], [20, 50, 80])]

    def ratio(self, baseline: str, name: str) -> float:
        """How many times faster `name` is: the median of the rounds' ratios."""
        return round(float(np.median(self.seconds[baseline] / self.seconds[name])), 3)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _probe(matrix: torch.Tensor) -> float:
    global _best_probe
    took = min(seconds(lambda: torch.mm(matrix, matrix)) for _ in range(3))
    _best_probe = min(_best_probe, took)
    return took


def in_turn(runs: Mapping[str, Run], rounds: int) -> Timing:
    """So many runs of each, one after the other; the order turns round by round, and nobody's first
    run counts."""
    matrix = torch.randn(512, 512)
    for run in runs.values():
        run()
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    probes = []
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds(runs[name]))
        probes.append(_probe(matrix))
    busy = 1 - _best_probe / float(np.median(probes))
    return Timing({name: np.array(t) for name, t in times.items()}, round(busy, 3))


@functools.cache
def commit() -> str:
    """The commit that is checked out, marked where what is measured or measures differs from it."""
    measured = ["marfast", "csrc", "benchmarks", ":!benchmarks/results"]
    changed = _git("status", "--porcelain", "--", *measured)
    return _git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()
