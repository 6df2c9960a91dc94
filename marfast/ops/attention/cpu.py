"""`attention` by PyTorch's own kernel, for the wanted queries alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast.ops.op import Args
from marfast.ops.runtime import Verdict


def can_run(a: Args) -> Verdict:
    return True, ""


def run(a: Args) -> Tensor:
    q, k, v = a.qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mask = None
    if a.queries is not None:
        rows = torch.arange(len(a.qkv), device=a.qkv.device)[:, None]
        q = a.qkv[rows, a.queries, 0].transpose(1, 2)
        if a.causal:
            positions = torch.arange(a.qkv.shape[1], device=a.qkv.device)
            mask = (positions <= a.queries[..., None])[:, None]
    causal = a.causal and mask is None
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)
