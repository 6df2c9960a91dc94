"""`ddpm_step` by csrc/cuda/ddpm_step.cuh."""

from torch import Tensor

from marfast.ops.ddpm_step import Step, branches, filled
from marfast.ops.head import takes_update
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, cuda, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    ok, reason = takes({"x": a.x})
    return takes_update(a, branches(a)) if ok else (ok, reason)


def run(a: Args) -> Tensor:
    return filled(a, launch)


def launch(out: Tensor, step: Step) -> None:
    """Fills `out` [N, C] or [2N, C] with one or two copies of x_{t-1}."""
    tokens = len(step.x)
    cuda.call(
        "ddpm_step",
        out.device,
        out=out[:tokens],
        x=rows_adjacent(step.x),
        model_output=rows_adjacent(step.model_output),
        noise=rows_adjacent(step.noise),
        coefficients=step.coefficients.contiguous(),
        guidance=step.guidance.contiguous(),
        x0=step.x0,
        options=step.options,
    )
    if len(out) > tokens:
        out[tokens:] = out[:tokens]
