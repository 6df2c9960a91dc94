"""`ddpm_step` by csrc/cpu/ddpm_step.h."""

from torch import Tensor

from marfast.ops.ddpm_step import step_of
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, cpu, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x})


def run(a: Args) -> Tensor:
    out: Tensor = a.x.new_empty(a.x.shape)
    cpu.extension().ddpm_step(
        out=out,
        x=rows_adjacent(a.x),
        model_output=rows_adjacent(a.model_output),
        noise=rows_adjacent(a.noise),
        coefficients=rows_adjacent(a.coefficients),
        guidance=a.guidance,
        options=step_of(a).options,
    )
    return out
