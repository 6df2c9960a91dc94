"""`attention` by PyTorch's own kernel, for the wanted queries alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.ops.attention import at_positions
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict


def can_run(a: Args) -> Verdict:
    return True, ""


def run(a: Args) -> Tensor:
    return at_positions(a, _attend)


def _attend(qkv: Tensor, queries: Tensor | None, causal: bool) -> Tensor:
    """[B, Lq, H·hd], as the op."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mask = None
    if queries is not None:
        rows = torch.arange(len(qkv), device=qkv.device)[:, None]
        q = qkv[rows, queries, 0].transpose(1, 2)
        if causal:
            positions = torch.arange(qkv.shape[1], device=qkv.device)
            mask = (positions <= queries[..., None])[:, None]
    causal = causal and mask is None
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)
