"""On a GPU, what runs a call is what was right and fastest there: measured once, kept on disk.

The first call of a class (an op, a dtype, shapes that are alike) tries every candidate: first its
answer against the reference's, then the time of the call, as a graph. All trials of a process take
BUDGET seconds in all, but for the call that is running when they are over; what was not tried then
is tried by the next process. Nothing is tried while a graph is captured.

MARFAST_TUNE=0, a forced backend and torch.use_deterministic_algorithms(True) leave the choice to
the order of backends.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from marfast import files
from marfast.ops import trials
from marfast.ops.runtime.capture import LOCK
from marfast.ops.self_check import Answer, DeviceLost, check_device, is_capturing, lacks_memory
from marfast.ops.stopwatch import CudaStopwatch, Stopwatch
from marfast.ops.trials import Trial, Trials

BUDGET = 10.0
"""Seconds that all trials of a process may take."""
SHARE = 0.25
"""Seconds of repeated runs, for one candidate."""
HOPELESS = 20
"""A candidate whose first steps alone take so many times the best one's whole call is not timed:
launched one by one they are slower than in a graph, but not by that much."""

log = logging.getLogger("marfast")


class Candidate(NamedTuple):
    """One way to compute a call."""

    label: str
    answer: Callable[[], Answer]
    """How right it is; may raise DeviceLost."""
    begin: Callable[[], object]
    """The call with few steps."""
    run: Callable[[], object]
    """The call."""


@dataclass
class Budget:
    """Seconds."""

    left: float = BUDGET


class Tuner:
    """What is known of a device's candidates.

    file: where it is kept; None keeps it for this process.
    """

    def __init__(self, device: torch.device, stopwatch: Stopwatch, file: Path | None, of: Budget):
        self.device, self.stopwatch, self.file, self.budget = device, stopwatch, file, of
        self.machine = stopwatch.machine()
        self.trials: Trials = {} if file is None else trials.read(file, self.machine)
        self._decided: dict[str, tuple[str, ...]] = {}

    def fastest_first(
        self, call: str, candidates: Callable[[], Sequence[Candidate]]
    ) -> tuple[str, ...]:
        """Labels of those that were right, or none where nothing was measured. The candidate that
        runs otherwise comes first in `candidates`."""
        if (decided := self._decided.get(call)) is not None:
            return decided
        if is_capturing():
            return _ranked(self.trials.get(call, {}))
        with LOCK:
            if call not in self._decided:
                found = candidates()
                if len(found) > 1:  # else there is nothing to choose
                    self._try(call, found)
                tried = self.trials.get(call, {})
                here = {c.label: tried[c.label] for c in found if c.label in tried}
                compared = bool(found) and found[0].label in here
                self._decided[call] = _ranked(here) if compared else ()
        return self._decided[call]

    def _try(self, call: str, candidates: Sequence[Candidate]) -> None:
        tried = dict(self.trials.get(call, {}))
        before = len(tried)
        try:
            for candidate in candidates:
                if candidate.label not in tried and self.budget.left > 0:
                    best = min(map(_seconds, tried.values()), default=math.inf)
                    start = self.stopwatch.now()
                    try:
                        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                            trial = self._trial(call, candidate, best)
                    except DeviceLost as lost:  # the next process will know
                        tried[candidate.label] = Trial(wrong=str(lost))
                        raise
                    self.budget.left -= self.stopwatch.now() - start
                    if trial is not None:
                        tried[candidate.label] = trial
        finally:
            if len(tried) > before:
                self.trials[call] = tried
                if self.file is not None:
                    trials.write(self.file, self.machine, {call: tried})

    def _trial(self, call: str, candidate: Candidate, best: float) -> Trial | None:
        """None where time or memory didn't suffice, which says nothing about the candidate."""
        start = self.stopwatch.now()
        try:
            error, wrong = candidate.answer()
            error = error if error is not None and math.isfinite(error) else None
            if wrong:
                return Trial(error, wrong=wrong)
            middle = self.stopwatch.now()
            candidate.begin()
            end = self.stopwatch.now()
            if end - middle > HOPELESS * best:
                return Trial(error, end - middle, at_least=True)
            left = self.budget.left - (end - start)
            if end - middle > left:
                return None
            return Trial(error, self.stopwatch.seconds(candidate.run, min(SHARE, left)))
        except DeviceLost:
            raise
        except Exception as failed:
            if lacks_memory(failed):
                return None
            what = f"{candidate.label!r} of {call}"
            check_device(self.device, what, failed)
            reason = f"{what} failed while it was timed: {failed}"
            warnings.warn(f"{reason}; it is not used", RuntimeWarning, stacklevel=5)
            return Trial(error, wrong=reason)


def _seconds(trial: Trial) -> float:
    return math.inf if trial.seconds is None or trial.wrong else trial.seconds


def _ranked(tried: Mapping[str, Trial]) -> tuple[str, ...]:
    right = [label for label, trial in tried.items() if _seconds(trial) < math.inf]
    return tuple(sorted(right, key=lambda label: _seconds(tried[label])))


_tuners: dict[torch.device, Tuner] = {}
_BUDGET = Budget()


def is_on(device: torch.device) -> bool:
    """Whether calls on this device are measured, unless a backend is forced."""
    return (
        device.type == "cuda"
        and os.environ.get("MARFAST_TUNE") != "0"
        and not torch.are_deterministic_algorithms_enabled()
    )


def tuner_of(device: torch.device) -> Tuner | None:
    """That of a device, where calls on it are measured."""
    if not is_on(device):
        return None
    if (found := _tuners.get(device)) is None:
        with LOCK:
            if (found := _tuners.get(device)) is None:
                found = _tuners[device] = _new(device)
    return found


def _new(device: torch.device) -> Tuner:
    stopwatch = CudaStopwatch(device)
    try:
        file = trials.file_for(files.cache_folder(), stopwatch.machine())
    except RuntimeError:  # no home
        file = None
    return Tuner(device, stopwatch, file, _BUDGET)
