"""What all measurements share: conditions, who is refused, timings while others disturb."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from marfast.bench.timing import AT_MOST_BUSY, Run, Timing, in_turn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TIMES_PYTORCH = 4
"""Where PyTorch itself is far off, a sample may be so many times as far: two or three sampling
steps amplify rounding by the thousand, until bfloat16 no longer determines a token."""


class WrongResult(RuntimeError):
    """Somebody's result is too far from the reference's: this case was not timed."""


@dataclass(frozen=True)
class Options:
    """What a benchmark may vary."""

    rounds: int = 9
    device: str = "cpu"
    compile: bool = False  # torch.compile, too
    original: Any = None  # verifying.case's Implementation of a checkout
    report: Callable[[str], None] = lambda what: None  # told what is being done
    verified: Callable[[str], None] = lambda what: None  # told of each case, before it is timed
    attempts: int = 3  # while others take more than AT_MOST_BUSY


def require(case: str, off: float, allowed: float) -> None:
    """Refuse whoever differs from the float32 reference by more than its dtype allows."""
    if not off < allowed:
        raise WrongResult(f"{case}: off by {off:.3g}, {allowed:.3g} is allowed; nothing was timed")


def verdict(case: str, found: Mapping[str, tuple[float, float]]) -> str:
    """A line on whose results were compared with the float32 reference's: how far off they are, and
    how far they may be."""
    told = ", ".join(f"{who} off by {off:.1e} of {most:.1e}" for who, (off, most) in found.items())
    return f"{case}: verified against the float32 reference: {told} allowed"


def quiet_timing(
    runs: Mapping[str, Run], rounds: int, attempts: int, report: Callable[[str], None]
) -> Timing:
    """The least disturbed of up to so many timings."""
    best = in_turn(runs, rounds, report)
    for _ in range(attempts - 1):
        if best.busy <= AT_MOST_BUSY:
            break
        best = min(best, in_turn(runs, rounds, report), key=lambda timing: timing.busy)
    return best


@contextmanager
def cast_weights_kept() -> Iterator[None]:
    """Weights that autocast has cast stay cast when it is left: an earlier run warms later ones."""
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
