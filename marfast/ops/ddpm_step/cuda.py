"""`ddpm_step` by csrc/cuda/ddpm_step.cuh."""

from torch import Tensor

from marfast.ops.ddpm_step import options as options_of
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, cuda, rows_adjacent, takes
from marfast.reference.diffusion import HeadOptions


def can_run(a: Args) -> Verdict:
    return takes({"x": a.x})


def run(a: Args) -> Tensor:
    out: Tensor = a.x.new_empty(a.x.shape)
    launch(out, a.x, a.model_output, a.noise, a.coefficients, a.guidance, options_of(a))
    return out


def launch(
    out: Tensor,
    x: Tensor,
    model_output: Tensor,
    noise: Tensor,
    coefficients: Tensor,
    guidance: Tensor,
    options: HeadOptions,
) -> None:
    """Fills `out` [N, C] or [2N, C] with one or two copies of x_{t-1}; x [N, C] may be its first N
    rows."""
    tokens = len(x)
    cuda.call(
        "ddpm_step",
        x.device,
        out=out[:tokens],
        x=rows_adjacent(x),
        model_output=rows_adjacent(model_output),
        noise=rows_adjacent(noise),
        coefficients=coefficients.contiguous(),
        guidance=guidance,
        options=options,
    )
    if len(out) > tokens:
        out[tokens:] = out[:tokens]
