"""`attention` by csrc/cpu/attention.h."""

from torch import Tensor

from marfast.ops.attention import wanted
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict, cpu, rows_adjacent, takes


def can_run(a: Args) -> Verdict:
    if 0 in a.qkv.shape:
        return False, "qkv is empty"
    return takes({"qkv": a.qkv}, DTYPES)


def run(a: Args) -> Tensor:
    batch, length, _, heads, head_dim = a.qkv.shape
    threads = cpu.threads()
    scratch = cpu.extension().attention_scratch(length=length, head_dim=head_dim)
    out: Tensor = a.qkv.new_empty((batch, wanted(a), heads * head_dim))
    cpu.extension().attention(
        out=out,
        qkv=rows_adjacent(a.qkv),
        queries=None if a.queries is None else a.queries.contiguous(),
        causal=a.causal,
        workspace=cpu.empty(threads, scratch),
        scratch=scratch,
        threads=threads,
    )
    return out
