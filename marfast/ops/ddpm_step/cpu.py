"""`ddpm_step` by csrc/cpu/ddpm_step.h."""

from torch import Tensor

from marfast.ops.ddpm_step import Step, filled
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, cpu, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x})


def run(a: Args) -> Tensor:
    return filled(a, _call)


def _call(out: Tensor, step: Step) -> None:
    cpu.extension().ddpm_step(
        out=out,
        x=rows_adjacent(step.x),
        model_output=rows_adjacent(step.model_output),
        noise=rows_adjacent(step.noise),
        coefficients=rows_adjacent(step.coefficients),
        guidance=step.guidance.contiguous(),
        x0=step.x0,
        options=step.options,
    )
