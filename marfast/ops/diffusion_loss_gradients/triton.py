"""`diffusion_loss_gradients` by Triton's kernel for the rows' terms and their derivatives, and the
library's products (marfast/ops/diffusion_loss/triton.py)."""

from torch import Tensor

from marfast.ops.diffusion_loss import rows
from marfast.ops.diffusion_loss.triton import can_run, terms
from marfast.ops.op import Args

__all__ = ["can_run", "run"]


def run(a: Args) -> Tensor:
    return rows.gradients(a, terms)
