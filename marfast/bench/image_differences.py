"""How far the package's transformers and head are from the reference's in an iteration."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from marfast import ops
from marfast.bench import images
from marfast.bench.measure import TIMES_PYTORCH, require

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # of the reference's largest value
Differences = dict[str, tuple[float, float]]
"""By contender: how far off, and how far it may be."""


def differences(
    case: str,
    contenders: Mapping[str, Any],
    ours: Mapping[str, str],
    eager: images.EagerRun,
    iteration: images.Iteration,
) -> Differences:
    """Of the contenders that are ours, with their dtypes; WrongResult if one is farther off than it
    may be."""
    expected = eager.head()
    found = {}
    for who, dtype in ours.items():
        z, sampled = _results(eager, contenders[who], iteration)
        off_z, off, allowed = _off(z, eager.z), _off(sampled, expected), TOLERANCE[dtype]
        require(f"{case}, {who}, transformers", off_z, allowed)
        if not off < allowed:
            pytorchs = contenders["eager" if dtype == "float32" else "autocast"]
            allowed = max(allowed, TIMES_PYTORCH * _rounding(eager, pytorchs))
        require(f"{case}, {who}, head", off, allowed)
        found[who] = max(off, off_z), allowed
    return found


def worst(one: Differences, other: Differences) -> Differences:
    """The larger of each."""
    return {
        who: (max(off, other.get(who, (0.0, 0.0))[0]), max(most, other.get(who, (0.0, 0.0))[1]))
        for who, (off, most) in one.items()
    }


def _results(
    eager: images.EagerRun, ours: images.Ours, iteration: images.Iteration
) -> tuple[Tensor, Tensor]:
    """z, and the head's tokens from the reference's z."""
    with ops.backend(ours.backend):
        ours.model.update()
        z = iteration.condition(ours.model).float()
        return z, ours.model.sample_head(*eager.head_arguments)


def _off(result: Tensor, expected: Tensor) -> float:
    """The largest distance, relative to the reference's largest value."""
    return float((result - expected).abs().max() / expected.abs().max())


def _rounding(eager: images.EagerRun, who: images.Eager) -> float:
    """How far PyTorch's own tokens are from those of float64, given the same z."""
    with who.around():
        sampled = eager.head()
    return _off(sampled, eager.head_in_float64())
