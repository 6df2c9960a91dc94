"""How `ddpm_sample` runs on a GPU: arithmetic (csrc/cuda/plan.h), no GPU.

Every time is an estimate, to choose by; none was measured.
"""

import functools
from typing import NamedTuple

import torch

from marfast.ops.head import HeadShape
from marfast.ops.head.gpu import MODULATION_BUDGET
from marfast.ops.runtime import DTYPES, cpu, cuda, short_dtype


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
    `floor` are estimated seconds, for all steps; `bytes`, `flops` and `barriers` are what they are
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
    return {gpu["name"]: GpuProfile(**gpu) for gpu in cpu.extension().gpu_profiles}


def head_plan(
    rows: int,
    shape: HeadShape,
    gpu: GpuProfile,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 100,
    modulation_budget: int = MODULATION_BUDGET,
    persistent: bool = False,
) -> HeadPlan:
    """The plan for R rows (2N under guidance) of a head with the least estimated time.

    persistent: of this regime, whatever the other would take; tall where none fits.

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
    if dtype not in DTYPES:
        names = " or ".join(map(short_dtype, DTYPES))
        raise TypeError(f"dtype is {short_dtype(dtype)}; it must be {names}")
    plan = cpu.extension().head_plan(
        gpu=gpu,
        shape=shape,
        dtype=dtype,
        rows=rows,
        steps=steps,
        modulation_budget=modulation_budget,
        persistent=persistent,
    )
    return HeadPlan(**plan)


BENT = {"persistent": 1.0, "patient": 8.0}
"""How many times its barrier time a GPU is taken to have, in plans that are persistent wherever one
can be: what is predicted of them is measured (marfast/ops/tuning.py)."""


def bent(gpu: GpuProfile, variant: str) -> GpuProfile:
    """A GPU for which the model makes the plan of this name; for "" as it is."""
    return gpu._replace(barrier_time=gpu.barrier_time * BENT.get(variant, 1.0))


@functools.cache
def profile_of(device: torch.device) -> GpuProfile:
    """This GPU: its own sizes, and the rates of the nearest that the model knows, by SM."""
    with cuda.on(device):
        sizes = cuda.module().device_sizes()

    def distance(known: GpuProfile) -> tuple[int, int, int]:
        return (
            abs(known.shared_bytes - sizes["shared_bytes"]),
            abs(known.sms - sizes["sms"]),
            abs(known.l2_bytes - sizes["l2_bytes"]),
        )

    known = min(gpu_profiles().values(), key=distance)
    share = sizes["sms"] / known.sms
    rates = ("memory_rate", "l2_rate", "half_rate", "float_rate")
    return known._replace(
        **sizes,
        **{rate: getattr(known, rate) * share for rate in rates},
    )
