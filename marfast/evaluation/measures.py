"""From sums to figures, each with the error that the number of images leaves."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marfast.evaluation.sums import Sums, total

GROUPS = 10
"""Into which images are parted for errors, and for the Inception Score, as is usual."""
NEIGHBOURS = 3


class Figure(NamedTuple):
    """A measured value and its standard error, if that could be told."""

    value: float
    error: float | None = None


def grouped(parts: Sequence[Sums]) -> list[Sums]:
    """At most `GROUPS` groups of consecutive parts, as equal as can be."""
    groups = min(GROUPS, len(parts))
    ends = [len(parts) * i // groups for i in range(groups + 1)]
    return [total(parts[a:b]) for a, b in itertools.pairwise(ends)]


def jackknife(groups: Sequence[Sums], measure: Callable[[Sums], float]) -> Figure:
    """A measure of all, and its error from leaving out one group after another.

    Of 3 or more groups: with fewer, what is left is too small to tell.
    """
    whole = total(groups)
    value = measure(whole)
    if len(groups) < 3:
        return Figure(value)
    left = torch.tensor([measure(whole - group) for group in groups], dtype=torch.float64)
    variance = (len(groups) - 1) * float((left - left.mean()).square().mean())
    return Figure(value, math.sqrt(variance))


def inception_score(groups: Sequence[Sums]) -> Figure:
    """The mean of the groups' scores, and their standard deviation, as it is published."""
    scores = torch.tensor([group.inception_score() for group in groups], dtype=torch.float64)
    return Figure(float(scores.mean()), float(scores.std(correction=0)))


def precision_and_recall(made: Tensor, real: Tensor) -> tuple[float, float]:
    """Of features [n, D] and [m, D] (Kynkäänniemi et al. 2019): the share of each that lies no
    farther from one of the other than that one's third neighbour of its own kind."""
    return _within(made, real), _within(real, made)


def _within(points: Tensor, others: Tensor) -> float:
    radii = torch.cat(
        [
            torch.cdist(part, others).kthvalue(min(NEIGHBOURS + 1, len(others))).values
            for part in others.split(1000)
        ]
    )
    inside = [(torch.cdist(part, others) <= radii).any(1) for part in points.split(1000)]
    return float(torch.cat(inside).double().mean())
