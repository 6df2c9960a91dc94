"""`diffusion_loss` by PyTorch's own operators (marfast/ops/diffusion_loss/rows.py)."""

from torch import Tensor

from marfast.ops.diffusion_loss import rows
from marfast.ops.diffusion_loss.terms import terms
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict


def can_run(a: Args) -> Verdict:
    return True, ""


def run(a: Args) -> Tensor:
    return rows.loss(a, terms)
