"""What tests compare with: bits, and PyTorch's own error against float64."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from marfast.ops import backend
from marfast.ops.runtime import cpu
from marfast.verifying.compare import bits, to_double
from marfast.verifying.op_table import OWN_PRODUCTS


def assert_bitwise_equal(actual: Tensor, expected: Tensor, label: str = "") -> None:
    """Every bit equal; one NaN equals another."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    differs = (bits(actual) != bits(expected)) & ~(actual.isnan() & expected.isnan())
    if differs.any():
        first = tuple(differs.nonzero()[0].tolist())
        raise AssertionError(
            f"{label} {int(differs.sum())} of {differs.numel()} elements differ, the first at "
            f"{first}: {actual[first].item()!r}, expected {expected[first].item()!r}"
        )


def on_every_isa(op: Callable[..., Tensor], *args: Any) -> dict[str, Tensor]:
    """The cpu backend's result on each instruction set that this CPU has."""
    results = {}
    with backend("cpu"):
        for isa in cpu.extension().isas():
            with cpu.cpu_isa(isa):
                results[isa] = op(*args)
    return results


def with_defined_bits(results: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Those of `on_every_isa` whose bits are defined under weights of this dtype."""
    own = OWN_PRODUCTS if dtype == torch.bfloat16 else ()
    return {isa: result for isa, result in results.items() if isa not in own}


def lane_sum(values: Tensor) -> Tensor:
    """The sum of each row of [R, w] in the order that docs/numerics.md defines -> [R, 1]."""
    rows, width = values.shape
    padded = torch.cat([values, values.new_zeros(rows, -width % 64)], dim=1)
    lanes = values.new_zeros(rows, 64)
    for group in padded.split(64, dim=1):
        lanes = lanes + group
    while lanes.shape[1] > 1:
        lanes = lanes[:, : lanes.shape[1] // 2] + lanes[:, lanes.shape[1] // 2 :]
    return lanes


def assert_as_accurate(
    op: Callable[..., Tensor], reference: Callable[..., Tensor], cases: Iterable[tuple[Any, ...]]
) -> None:
    """Over all cases, the op's error against float64 is at most 2 times the reference's at the same
    dtype in RMS and 4 times in maximum."""
    ours, theirs = [], []
    for args in cases:
        exact = reference(*to_double(args))
        ours.append((op(*args).double() - exact).flatten())
        theirs.append((reference(*args).double() - exact).flatten())
    our, their = torch.cat(ours).abs(), torch.cat(theirs).abs()
    worst = int(our.argmax())
    rms, allowed_rms = our.square().mean().sqrt(), their.square().mean().sqrt()
    report = (
        f"maximum {our.max():.3g} (at flat index {worst}; PyTorch {their.max():.3g}), "
        f"RMS {rms:.3g} (PyTorch {allowed_rms:.3g})"
    )
    assert math.isfinite(our.sum()), report
    assert our.max() <= 4 * their.max(), report
    assert rms <= 2 * allowed_rms, report
