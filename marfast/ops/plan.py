"""How `ddpm_sample` would run on a GPU, and in what time: arithmetic (csrc/cuda/plan.h), no GPU.

Every time is a prediction of a model of the device, not a measurement.
"""

import functools
from typing import NamedTuple

import torch

from marfast.ops import checks, cuda, native
from marfast.ops.head import HeadShape

MODULATION_BUDGET = 1 << 30
"""Bytes that the hoisted modulation may take; past it, it is computed for fewer steps at a time."""

REGIMES = ("persistent", "tall")


class GpuProfile(NamedTuple):
    """What the model knows of a GPU; rates are what a good kernel reaches, per second."""

    name: str
    sms: int
    shared_bytes: int
    l2_bytes: int
    memory_rate: float
    l2_rate: float
    half_rate: float
    mma_share: float
    float_rate: float
    barrier_time: float
    launch_time: float


class HeadPlan(NamedTuple):
    """One call of `ddpm_sample` on one GPU.

    `utilisation` is the work over the SMs times the most work that one of them has. `time` and
    `floor` are predicted seconds, for all steps; `bytes`, `flops` and `barriers` are what they are
    made of. In the tall regime the tiles are the library's, and the sizes of a CTA are 0.
    """

    regime: str
    row_groups: int
    column_groups: int
    row_tile: int
    columns: int
    normalise_once: bool
    stationary: int
    staged: bool
    shared_bytes: int
    chunk: int
    modulation_bytes: int
    utilisation: float
    bytes: float
    flops: float
    barriers: float
    time: float
    floor: float


@functools.cache
def gpu_profiles() -> dict[str, GpuProfile]:
    """The GPUs that the model knows, by name."""
    return {values[0]: GpuProfile(*values) for values in native.extension().gpu_profiles}


def head_plan(
    rows: int,
    shape: HeadShape,
    gpu: GpuProfile,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 100,
    modulation_budget: int = MODULATION_BUDGET,
) -> HeadPlan:
    """The plan for R rows (2N under guidance) of a head, and its predicted time.

    Raises:
        ValueError: fewer than one row or step, or a width that is no multiple of 32 up to 2048.
        TypeError: a dtype that is not float32, bfloat16 or float16.
        ImportError: the native extension is missing.
    """
    for name, value in (("rows", rows), ("steps", steps), ("depth", shape.depth)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if shape.width % 32 or not 32 <= shape.width <= 2048:
        raise ValueError(f"width is {shape.width}; allowed are multiples of 32 from 32 to 2048")
    if dtype not in native.DTYPE_CODES:
        names = " or ".join(map(checks.short_dtype, native.DTYPE_CODES))
        raise TypeError(f"dtype is {checks.short_dtype(dtype)}; it must be {names}")
    regime, *rest = native.extension().head_plan(
        tuple(gpu), tuple(shape), native.DTYPE_CODES[dtype], rows, steps, modulation_budget
    )
    return HeadPlan(REGIMES[regime], *rest)


@functools.cache
def profile_of(device: torch.device) -> GpuProfile:
    """This GPU: its own sizes, and the rates of the nearest that the model knows, by SM."""
    sms, shared_bytes, l2_bytes = cuda.device_sizes(device)

    def distance(known: GpuProfile) -> tuple[int, int, int]:
        return (
            abs(known.shared_bytes - shared_bytes),
            abs(known.sms - sms),
            abs(known.l2_bytes - l2_bytes),
        )

    known = min(gpu_profiles().values(), key=distance)
    share = sms / known.sms
    rates = ("memory_rate", "l2_rate", "half_rate", "float_rate")
    return known._replace(
        sms=sms,
        shared_bytes=shared_bytes,
        l2_bytes=l2_bytes,
        **{rate: getattr(known, rate) * share for rate in rates},
    )
