"""What phases of an image took, and what they take at least: summed over the calls that are timed,
each of which stands for several."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from marfast.bench.floors import Floors
from marfast.bench.images import Phases
from marfast.bench.measure import DTYPES
from marfast.bench.timing import in_turn


class Taken:
    """Seconds by contender: `totals` of each round, `phases` as medians of the rounds. `busy` is
    the largest share of the machine that others took."""

    def __init__(self, contenders: Iterable[str], rounds: int):
        self.rounds, self.busy = rounds, 0.0
        self.totals = {who: np.zeros(rounds) for who in contenders}
        self.phases: dict[str, Phases] = {who: defaultdict(float) for who in self.totals}

    def add(
        self, runs: Mapping[str, Callable[[], Phases]], calls: float, report: Callable[[str], None]
    ) -> None:
        """Time them in turn; each run stands for so many calls."""
        found: dict[str, list[Phases]] = {who: [] for who in runs}

        def record(who: str) -> None:
            found[who].append(runs[who]())

        timing = in_turn({who: partial(record, who) for who in runs}, self.rounds, report)
        self.busy = max(self.busy, timing.busy)
        for who, with_warm_up in found.items():
            rounds = with_warm_up[-self.rounds :]
            for phase in rounds[0]:
                self.phases[who][phase] += calls * float(np.median([r[phase] for r in rounds]))
            self.totals[who] += calls * np.array([sum(r.values()) for r in rounds])


class Least:
    """The floors: `seconds` by dtype and phase, and the `flops` of each phase."""

    def __init__(self, floors: Floors):
        self.floors = floors
        self.flops: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, Phases] = {dtype: defaultdict(float) for dtype in DTYPES}

    def add(
        self, phase: str, flops: float, weights: int, calls: float = 1, dtype: str | None = None
    ) -> None:
        """So many calls of so many flops, each of which reads so many weights, in the dtype whose
        floor it is, or always in this one."""
        self.flops[phase] += calls * flops
        for of, seconds in self.seconds.items():
            computed = dtype or of
            size = weights * DTYPES[computed].itemsize
            seconds[phase] += calls * self.floors.seconds(flops, size, computed)

    def share_of_peak(self, phases: Iterable[str], seconds: float, dtype: str) -> float:
        """Of the machine's arithmetic, that these phases use when they take so long."""
        return sum(self.flops[phase] for phase in phases) / self.floors.flops[dtype] / seconds
