"""`attention`: softmax(Q K^T / sqrt(hd)) V from a packed projection, by online softmax.

    s_j   = (q . k_j) log2(e) / sqrt(hd)        masked where a causal mask or the length says so
    m     = max over keys, l = sum of 2^(s_j - m), out = (sum of 2^(s_j - m) v_j) / l

A program has BQ queries of one head of one image and walks along the keys, BK at a time; when m
grows, l and the sum so far are scaled by 2^(m_old - m_new). Q, K and V are read where the
projection left them, and the result is written where the next projection reads it: nothing is
transposed in memory. The queries wanted may be a list of positions, so MAR's last decoder block
computes no others; what is no position gives NaN.

A head's dimension is cut in two powers of two (triton_tiles.head_dims): 80 is 64 + 16, a quarter
less work than 80 padded to 128 (Q K^T and P V are each the sum, or the two halves, of two
products). Products add in float32, in order of the keys; float32 factors are not rounded to TF32.
Bytes moved: 3 B L H hd numbers in, B Lq H hd out (K and V stay in cache between an image's tiles);
the floor is the greater of that over the bandwidth and 4 B H Lq L hd operations over the peak.
"""

import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.attention import wanted
from marfast.ops.op import Args
from marfast.ops.runtime import Verdict, rows_adjacent
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import takes


@triton.jit(do_not_specialize=["length", "wanted", "stride_queries"])
def attention_kernel(
    p_out,  # [B, Lq, H, hd]
    p_qkv,  # [B, L, 3, H, hd]
    p_queries,  # [B, Lq] positions, or None for all
    length,
    wanted,
    heads,
    stride_batch,
    stride_position,
    stride_part,
    stride_head,
    stride_queries,
    scale,  # log2(e) / sqrt(hd)
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM_0: tl.constexpr,
    DIM_1: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    o_wanted = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)  # [BQ]
    m_wanted = o_wanted < wanted
    if p_queries is None:
        positions = o_wanted
        m_known = m_wanted
    else:
        p_positions = p_queries + batch * stride_queries + o_wanted
        given = tl.load(p_positions, mask=m_wanted, other=0)
        m_known = (given >= 0) & (given < length)
        positions = tl.where(m_known, given, 0).to(tl.int32)
    o_dim_0 = tl.arange(0, DIM_0)
    m_dim_0 = o_dim_0 < HEAD_DIM
    p_qkv += batch * stride_batch + head * stride_head
    p_query = p_qkv + positions[:, None] * stride_position  # [BQ, 1]
    m_q = m_wanted[:, None] & m_dim_0[None, :]
    b_q_0 = tl.load(p_query + o_dim_0[None, :], mask=m_q, other=0.0)  # [BQ, D0]
    b_out_0 = tl.full((BLOCK_Q, DIM_0), 0.0, tl.float32)
    if DIM_1 > 0:
        o_dim_1 = DIM_0 + tl.arange(0, DIM_1)
        m_dim_1 = o_dim_1 < HEAD_DIM
        m_q = m_wanted[:, None] & m_dim_1[None, :]
        b_q_1 = tl.load(p_query + o_dim_1[None, :], mask=m_q, other=0.0)  # [BQ, D1]
        b_out_1 = tl.full((BLOCK_Q, DIM_1), 0.0, tl.float32)
    b_max = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    b_sum = tl.full((BLOCK_Q,), 0.0, tl.float32)

    # a causal program ends after its last query; every query sees the first key at least
    end = length
    if CAUSAL:
        end = tl.minimum(length, tl.max(tl.where(m_wanted, positions, 0), 0) + 1)
    for key in range(0, end, BLOCK_K):
        o_keys = key + tl.arange(0, BLOCK_K)  # [BK]
        m_keys = o_keys < length
        p_keys = p_qkv + stride_part + o_keys[None, :] * stride_position  # [1, BK]
        p_values = p_qkv + 2 * stride_part + o_keys[:, None] * stride_position  # [BK, 1]
        m_k = m_dim_0[:, None] & m_keys[None, :]
        b_k = tl.load(p_keys + o_dim_0[:, None], mask=m_k, other=0.0)  # [D0, BK]
        b_scores = tl.dot(b_q_0, b_k, input_precision="ieee")  # [BQ, BK]
        if DIM_1 > 0:
            m_k = m_dim_1[:, None] & m_keys[None, :]
            b_k = tl.load(p_keys + o_dim_1[:, None], mask=m_k, other=0.0)  # [D1, BK]
            b_scores = tl.dot(b_q_1, b_k, b_scores, input_precision="ieee")
        m_scores = m_keys[None, :]
        if CAUSAL:
            m_scores = m_scores & (o_keys[None, :] <= positions[:, None])
        b_scores = tl.where(m_scores, b_scores * scale, float("-inf"))
        b_new_max = tl.maximum(b_max, tl.max(b_scores, 1))
        b_shrink = tl.exp2(b_max - b_new_max)
        b_p = tl.exp2(b_scores - b_new_max[:, None])  # [BQ, BK]
        b_sum = b_sum * b_shrink + tl.sum(b_p, 1)
        b_max = b_new_max
        b_p = b_p.to(p_qkv.dtype.element_ty)
        m_v = m_keys[:, None] & m_dim_0[None, :]
        b_v = tl.load(p_values + o_dim_0[None, :], mask=m_v, other=0.0)  # [BK, D0]
        b_out_0 = tl.dot(b_p, b_v, b_out_0 * b_shrink[:, None], input_precision="ieee")
        if DIM_1 > 0:
            m_v = m_keys[:, None] & m_dim_1[None, :]
            b_v = tl.load(p_values + o_dim_1[None, :], mask=m_v, other=0.0)  # [BK, D1]
            b_out_1 = tl.dot(b_p, b_v, b_out_1 * b_shrink[:, None], input_precision="ieee")

    b_sum = tl.where(m_known, b_sum, float("nan"))
    p_row = p_out + ((batch * wanted + o_wanted[:, None]) * heads + head) * HEAD_DIM  # [BQ, 1]
    b_out_0 = tl.div_rn(b_out_0, b_sum[:, None]).to(p_out.dtype.element_ty)
    tl.store(p_row + o_dim_0[None, :], b_out_0, mask=m_wanted[:, None] & m_dim_0[None, :])
    if DIM_1 > 0:
        b_out_1 = tl.div_rn(b_out_1, b_sum[:, None]).to(p_out.dtype.element_ty)
        tl.store(p_row + o_dim_1[None, :], b_out_1, mask=m_wanted[:, None] & m_dim_1[None, :])


def can_run(a: Args) -> Verdict:
    if a.qkv.shape[-1] > 128:
        return False, f"qkv has heads of {a.qkv.shape[-1]}; the kernel takes 128 at most"
    return takes({"qkv": a.qkv})


def run(a: Args) -> Tensor:
    batch, length, _, heads, head_dim = a.qkv.shape
    count = wanted(a)
    out: Tensor = a.qkv.new_empty((batch, count, heads * head_dim))
    if out.numel() == 0:
        return out
    qkv = rows_adjacent(a.qkv)
    tile = tiles.attention(count, head_dim, qkv.dtype)
    dim_0, dim_1 = tiles.head_dims(head_dim)
    attention_kernel[(batch * heads, tiles.tiles(count, tile.queries))](
        p_out=out,
        p_qkv=qkv,
        p_queries=None if a.queries is None else a.queries.contiguous(),
        length=length,
        wanted=count,
        heads=heads,
        stride_batch=qkv.stride(0),
        stride_position=qkv.stride(1),
        stride_part=qkv.stride(2),
        stride_head=qkv.stride(3),
        stride_queries=count,
        scale=1.4426950408889634 / head_dim**0.5,
        CAUSAL=a.causal,
        HEAD_DIM=head_dim,
        DIM_0=dim_0,
        DIM_1=dim_1,
        BLOCK_Q=tile.queries,
        BLOCK_K=tile.keys,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out
