"""`group_norm_silu`: SiLU(GroupNorm(x)), or GroupNorm(x) alone, for any channels-last or dense map.

    of each channel over each chunk of positions:   s = sum of x, q = sum of (x - s / n)^2
    of a group:  mean = (sum of s) / N
                 var  = (sum of q + n (s / n - mean)^2) / N, over its channels and chunks
    out = SiLU(((x - mean) rstd) weight + bias)

Three launches: moments of chunks, moments of groups, the result; nothing in Triton waits for a
whole grid. The moments' tile is [BP, BC], positions by channels, so that a channels_last map is
read in whole sectors; its sums have BP lanes, folded by a tree. Moments of chunks are small: 2
numbers for CHUNK x. Bytes moved: x three times (the second walk over a chunk finds it in cache),
the result once; the floor is 3 B C H W numbers over the memory's bandwidth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from marfast.ops.op import Args
from marfast.ops.runtime import Verdict
from marfast.ops.runtime import triton_tiles as tiles
from marfast.ops.runtime.triton import takes
from marfast.ops.runtime.triton_functions import silu
from marfast.ops.runtime.triton_tiles import CHANNELS, POSITIONS


@triton.jit
def chunk_moments_kernel(
    p_moments,  # [2, B, C, chunks] float32: s, q
    p_x,  # [B, C, P]
    positions,
    channels,
    stride_batch,
    stride_channel,
    stride_position,
    CHUNK: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    chunk = tl.program_id(0)
    batch = tl.program_id(1)
    o_channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BC]
    m_channels = o_channels < channels
    first = chunk * CHUNK
    last = tl.minimum(first + CHUNK, positions)
    p_channels = p_x + batch.to(tl.int64) * stride_batch
    p_channels += o_channels.to(tl.int64)[None, :] * stride_channel  # [1, BC]

    b_sum = tl.full((BLOCK_P, BLOCK_C), 0.0, tl.float32)
    for position in range(first, last, BLOCK_P):
        o_positions = (position + tl.arange(0, BLOCK_P))[:, None]  # [BP, 1]
        m_x = (o_positions < last) & m_channels[None, :]
        b_x = tl.load(p_channels + o_positions.to(tl.int64) * stride_position, mask=m_x, other=0.0)
        b_sum += b_x.to(tl.float32)
    s = tl.sum(b_sum, 0)  # [BC]
    mean = tl.div_rn(s, (last - first) * 1.0)

    b_sum = tl.full((BLOCK_P, BLOCK_C), 0.0, tl.float32)
    for position in range(first, last, BLOCK_P):
        o_positions = (position + tl.arange(0, BLOCK_P))[:, None]
        m_x = (o_positions < last) & m_channels[None, :]
        b_x = tl.load(p_channels + o_positions.to(tl.int64) * stride_position, mask=m_x, other=0.0)
        b_x = tl.where(m_x, b_x.to(tl.float32) - mean[None, :], 0.0)
        b_sum += b_x * b_x
    q = tl.sum(b_sum, 0)

    chunks = tl.num_programs(0)
    o_moments = (batch * channels + o_channels) * chunks + chunk
    tl.store(p_moments + o_moments, s, mask=m_channels)
    p_squares = p_moments + tl.num_programs(1) * channels * chunks
    tl.store(p_squares + o_moments, q, mask=m_channels)


@triton.jit
def group_moments_kernel(
    p_group,  # [2, B, G] float32: mean, rstd
    p_moments,  # [2, B, G, C / G, chunks] float32: s, q
    count,  # C / G times chunks
    positions,
    chunks,
    eps,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    group = tl.program_id(0)
    p_sums = p_moments + group * count
    p_squares = p_sums + tl.num_programs(0) * count
    o_moments = tl.arange(0, BLOCK)
    b_sum = tl.full((BLOCK,), 0.0, tl.float32)
    for first in range(0, count, BLOCK):
        b_sum += tl.load(p_sums + first + o_moments, mask=first + o_moments < count, other=0.0)
    total = (count // chunks) * 1.0 * positions
    mean = tl.div_rn(tl.sum(b_sum, 0), total)
    b_sum = tl.full((BLOCK,), 0.0, tl.float32)
    for first in range(0, count, BLOCK):
        o_here = first + o_moments
        m_here = o_here < count
        n = tl.minimum(CHUNK, positions - (o_here % chunks) * CHUNK).to(tl.float32)
        apart = tl.div_rn(tl.load(p_sums + o_here, mask=m_here, other=0.0), n) - mean
        b_square = tl.load(p_squares + o_here, mask=m_here, other=0.0) + n * (apart * apart)
        b_sum += tl.where(m_here, b_square, 0.0)
    variance = tl.div_rn(tl.sum(b_sum, 0), total)
    tl.store(p_group + group, mean)
    p_rstd = p_group + tl.num_programs(0)
    tl.store(p_rstd + group, tl.div_rn(1.0, tl.sqrt_rn(variance + eps)))


@triton.jit
def group_norm_silu_kernel(
    p_out,  # [B, C, P], x's layout
    p_x,  # [B, C, P]
    p_weight,  # [C]
    p_bias,  # [C]
    p_group,  # [2, B, G] float32: mean, rstd
    positions,
    channels,
    groups,
    stride_batch,
    stride_channel,
    stride_position,
    out_batch,
    out_channel,
    out_position,
    SILU: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    batch = tl.program_id(1)
    o_positions = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]  # [BP, 1]
    o_channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BC]
    m_channels = o_channels < channels
    m_x = (o_positions < positions) & m_channels[None, :]
    o_group = batch * groups + o_channels // (channels // groups)
    mean = tl.load(p_group + o_group, mask=m_channels, other=0.0)[None, :]  # [1, BC]
    p_rstd = p_group + tl.num_programs(1) * groups
    rstd = tl.load(p_rstd + o_group, mask=m_channels, other=0.0)[None, :]
    weight = tl.load(p_weight + o_channels, mask=m_channels, other=0.0)[None, :].to(tl.float32)
    bias = tl.load(p_bias + o_channels, mask=m_channels, other=0.0)[None, :].to(tl.float32)
    o_positions = o_positions.to(tl.int64)
    o_channels = o_channels.to(tl.int64)[None, :]
    o_x = batch.to(tl.int64) * stride_batch + o_positions * stride_position
    b_x = tl.load(p_x + o_x + o_channels * stride_channel, mask=m_x, other=0.0).to(tl.float32)
    b_x = (b_x - mean) * rstd * weight + bias  # [BP, BC]
    if SILU:
        b_x = silu(b_x)
    o_out = batch.to(tl.int64) * out_batch + o_positions * out_position
    b_x = b_x.to(p_out.dtype.element_ty)
    tl.store(p_out + o_out + o_channels * out_channel, b_x, mask=m_x)


def can_run(a: Args) -> Verdict:
    _, _, height, width = a.x.shape
    if height > 1 < width and a.x.stride(2) != width * a.x.stride(3):
        return False, "x's positions don't lie at one stride"
    return takes({"x": a.x})


def run(a: Args) -> Tensor:
    batch, channels, height, width = a.x.shape
    positions = height * width
    if a.x.is_contiguous(memory_format=torch.channels_last):
        out: Tensor = a.x.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)
    else:
        out = a.x.new_empty(a.x.shape)
    if batch == 0:
        return out
    along = 3 if width > 1 else 2  # a dimension whose stride is that of positions
    chunks, channel_tiles = tiles.tiles(positions, tiles.CHUNK), tiles.tiles(channels, CHANNELS)
    moments = a.x.new_empty((2, batch, channels, chunks), dtype=torch.float32)
    chunk_moments_kernel[(chunks, batch, channel_tiles)](
        p_moments=moments,
        p_x=a.x,
        positions=positions,
        channels=channels,
        stride_batch=a.x.stride(0),
        stride_channel=a.x.stride(1),
        stride_position=a.x.stride(along),
        CHUNK=tiles.CHUNK,
        BLOCK_P=POSITIONS,
        BLOCK_C=CHANNELS,
        num_warps=4,
    )
    of_groups = a.x.new_empty((2, batch, a.groups), dtype=torch.float32)
    group_moments_kernel[(batch * a.groups,)](
        p_group=of_groups,
        p_moments=moments,
        count=channels // a.groups * chunks,
        positions=positions,
        chunks=chunks,
        eps=a.eps,
        CHUNK=tiles.CHUNK,
        BLOCK=tiles.ELEMENTS,
        num_warps=4,
    )
    group_norm_silu_kernel[(tiles.tiles(positions, POSITIONS), batch, channel_tiles)](
        p_out=out,
        p_x=a.x,
        p_weight=a.weight.contiguous(),
        p_bias=a.bias.contiguous(),
        p_group=of_groups,
        positions=positions,
        channels=channels,
        groups=a.groups,
        stride_batch=a.x.stride(0),
        stride_channel=a.x.stride(1),
        stride_position=a.x.stride(along),
        out_batch=out.stride(0),
        out_channel=out.stride(1),
        out_position=out.stride(along),
        SILU=a.silu,
        BLOCK_P=POSITIONS,
        BLOCK_C=CHANNELS,
        num_warps=4,
    )
    return out
