"""`attention` by csrc/cuda/attention.cuh."""

from torch import Tensor

from marfast.ops.attention import wanted
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cuda, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    batch, length, _, heads, head_dim = a.qkv.shape
    if head_dim > 128:
        return False, f"qkv has heads of {head_dim}; the kernel takes 128 at most"
    if max(length, batch * heads * wanted(a)) >= 2**31:
        return False, "there are 2^31 positions or queries of all heads, or more"
    return takes({"qkv": a.qkv}, DTYPES)


def run(a: Args) -> Tensor:
    batch, _, _, heads, head_dim = a.qkv.shape
    out: Tensor = a.qkv.new_empty((batch, wanted(a), heads * head_dim))
    cuda.call(
        "attention",
        a.qkv.device,
        out=out,
        qkv=rows_adjacent(a.qkv),
        queries=None if a.queries is None else a.queries.contiguous(),
        causal=a.causal,
    )
    return out
