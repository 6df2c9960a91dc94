"""`ddpm_sample` by csrc/cuda, in one of two regimes (csrc/cuda/plan.h):

    persistent  one cooperative kernel for all steps of a chunk
    tall        launch by launch (marfast/ops/head/gpu.py)

Which one is quicker is predicted (plan.py), unless the variant of a call says it: where calls are
measured, "tall", "persistent" and "patient", a persistent one made for slow barriers, are tried.

The persistent regime computes every product by our own kernels: a token's bits depend on no batch.
The tall one takes the library's in bfloat16 and float16; in float32 our own there, too, whose order
of additions is defined (docs/numerics.md).
"""

import contextlib
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from marfast.ops.ddpm_sample import options, plan, scales_of
from marfast.ops.head import HeadShape, gpu, takes_mars, takes_update
from marfast.ops.head.cuda import Launches, TallHead, dense
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cuda, takes

VARIANTS = ("tall", *plan.BENT)

MOST_DEPTH = 32
"""Of the persistent kernel, whose parameters have the weights' addresses."""

BARRIER_LIMIT = 20 * 10**9
"""Nanoseconds that a block waits for the others, before the kernel ends in an error."""


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"noise": a.noise})
    if ok:
        ok, reason = takes({"weights": a.weights[0]}, DTYPES)
    if ok:
        ok, reason = takes_update(a, options(a).branches)
    return takes_mars(a) if ok else (ok, reason)


def variants(a: Args) -> list[str]:
    """Those that differ in how they run all tokens at once."""
    shape, dtype, device = HeadShape.of(a.weights), a.weights[0].dtype, a.noise.device
    found: dict[plan.HeadPlan | None, str] = {}
    for variant in VARIANTS:
        chosen, _ = regime(shape, dtype, device, len(a.cond), len(a.schedule), variant)
        if chosen is not None:  # what is predicted of it makes no other plan
            chosen = chosen._replace(time=0.0, floor=0.0)
        found.setdefault(chosen, variant)
    return [*found.values()]


def run(a: Args, variant: str = "") -> Tensor:
    shape, dtype, steps = HeadShape.of(a.weights), a.weights[0].dtype, len(a.schedule)
    weights = [dense(weight) for weight in a.weights]

    def head_of(rows: int) -> gpu.Head:
        chosen, _ = regime(shape, dtype, a.noise.device, rows, steps, variant)
        if chosen is None:
            return gpu.Head(weights, Launches()) if dtype == torch.float32 else TallHead(weights)
        return PersistentHead(weights, shape, chosen)

    with FULL_SUMS:
        return gpu.sample(a, options(a), scales_of(a), head_of)


def regime(
    shape: HeadShape,
    dtype: torch.dtype,
    device: torch.device,
    rows: int,
    steps: int,
    variant: str = "",
) -> tuple[plan.HeadPlan | None, str]:
    """The plan of the persistent kernel; or None, and why the tall regime takes its place."""
    if variant == "tall":
        return None, "it is asked for"
    if shape.width % 32 or shape.width > 2048 or not 1 <= shape.depth <= MOST_DEPTH:
        return (
            None,
            f"width {shape.width}, depth {shape.depth}: the kernel takes multiples of 32 to 2048, "
            f"and depths of 1 to {MOST_DEPTH}",
        )
    profile = plan.bent(plan.profile_of(device), variant)
    chosen = plan.head_plan(rows, shape, profile, dtype, steps, persistent=variant != "")
    if chosen.regime == "tall":
        return None, f"tall products should take less for {rows} rows, by an estimate"
    with cuda.on(device):
        resident = cuda.module().resident_blocks(shape=shape, dtype=dtype, plan=chosen)
    if resident < (blocks := chosen.row_groups * chosen.column_groups):
        return None, f"the device holds {resident} of its {blocks} blocks at once"
    return chosen, ""


class PersistentHead(gpu.Head):
    """Whose steps are one kernel's."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        shape: HeadShape,
        chosen: plan.HeadPlan,
    ) -> None:
        super().__init__(weights, Launches())
        self.tensors, self.shape, self.plan = weights, shape, chosen

    def run(self, out: Tensor, state: Tensor, steps: gpu.Steps) -> None:
        device, rows = state.device, steps.modulation.shape[1]
        normed, hidden = torch.empty((2, rows, self.width), dtype=self.dtype, device=device)
        cuda.call(
            "ddpm_sample",
            device,
            out=out,
            before=state,
            step_noise=steps.noise,
            schedule=steps.schedule,
            guidance=steps.guidance.flatten(),
            x0=steps.x0,
            modulation=steps.modulation,
            weights=self.tensors,
            barrier=torch.zeros(1, dtype=torch.int64, device=device),
            x=state.new_empty((rows, self.width)),
            state=state.new_empty((4, *state.shape)),
            output=state.new_empty((rows, 2 * self.shape.channels)),
            normed=normed,
            hidden=hidden,
            shape=self.shape,
            plan=self.plan,
            options=steps.options,
            limit_ns=BARRIER_LIMIT,
        )


class _FullSums(contextlib.AbstractContextManager[None]):
    """The library adds in float32, also where it splits a sum, while any thread is inside: the
    settings are the process's, so the first to come makes them, and the last to go undoes it."""

    NAMES = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[bool] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [getattr(torch.backends.cuda.matmul, name) for name in self.NAMES]
                self._set([False] * len(self.NAMES))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._before)

    def _set(self, values: Sequence[bool]) -> None:
        for name, value in zip(self.NAMES, values, strict=True):
            setattr(torch.backends.cuda.matmul, name, value)


FULL_SUMS = _FullSums()
