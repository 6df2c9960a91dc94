"""How time grows along an axis: a straight line in a stated quantity, and how well it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """time = intercept + slope · x."""

    intercept: float  # in the unit of time
    slope: float  # of it, for one of x
    rms: float | None  # of the relative residuals; None where two points leave none
    worst: float | None  # the largest of them
    exponent: float  # of time ∝ x^exponent over the upper half of the points

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x


def fit(x: Sequence[float], times: Sequence[float]) -> Fit:
    """The line with the least squares of relative residuals: times may span decades.

    x, times: positive, at least two different x. Raises ValueError for fewer.
    """
    if len(set(x)) < 2 or len(x) != len(times) or min(*x, *times) <= 0:
        raise ValueError("a fit takes positive x and times, and at least two different x")
    order = np.argsort(x)
    xs, ts = np.array(x, float)[order], np.array(times, float)[order]
    design = np.stack([1 / ts, xs / ts], axis=1)
    intercept, slope = np.linalg.lstsq(design, np.ones(len(xs)), rcond=None)[0]
    off = np.abs((intercept + slope * xs) / ts - 1)
    upper = slice(min(len(xs) // 2, len(xs) - 2), None)
    exponent = np.polyfit(np.log(xs[upper]), np.log(ts[upper]), 1)[0]
    left = len(xs) > 2
    return Fit(
        float(intercept),
        float(slope),
        float(np.sqrt(np.mean(off**2))) if left else None,
        float(off.max()) if left else None,
        float(exponent),
    )
