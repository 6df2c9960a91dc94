"""`adaln_mlp`: one residual block of the head, x + gate (W2 SiLU(W1 h + b1) + b2).

    h      = layer_norm_modulate(x, shift, scale, ln_weight, ln_bias, eps)
    hidden = SiLU(h W1^T + b1)               `fused_linear_kernel`, LayerNorm on the way in
    out    = x + gate (hidden W2^T + b2)     `fused_linear_kernel`, gate and residual last

Two launches: every output of the second product needs every output of the first, and nothing in
Triton waits for a whole grid. `hidden` is kept in the weights' dtype, to which it would be rounded
anyway.
"""

from torch import Tensor

from .fused_linear import launch


def adaln_mlp(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    packed: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The op; `out` may be x. `packed` is the CPU's, and not read."""
    hidden = x.new_empty(x.shape, dtype=w1.dtype)
    affine, modulation = (ln_weight, ln_bias), (shift, scale)
    launch(
        *(hidden, x, w1, b1),
        norm=True,
        affine=affine,
        modulation=modulation,
        activation="silu",
        eps=eps,
        factor=True,
    )
    out = x.new_empty(x.shape) if out is None else out
    return launch(out, hidden, w2, b2, gate=gate, residual=x)
