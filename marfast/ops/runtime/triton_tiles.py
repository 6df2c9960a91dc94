"""Every Triton kernel's configuration, in one place; nothing is tuned at run time.

A configuration is chosen by the number of rows and the dtype of the products alone, so that what is
compiled stays the same while the number of rows changes. No figure here was measured on a GPU yet:
each is derived, and compiled within docs/triton.md's limits of registers and shared memory.
"""

from typing import NamedTuple

import torch

HALF = (torch.float16, torch.bfloat16)


class LinearTile(NamedTuple):
    """A program's tile of a product x Wᵀ: [rows, outputs], `inputs` of both factors at a time."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int  # of loads in flight


def chain(inputs: int, tile: int, dtype: torch.dtype) -> int:
    """How many products one chain adds up, whole tiles of them: of float32 256 at most
    (docs/numerics.md, linear); of half precision, whose rounding is far coarser, all."""
    everything = tiles(inputs, tile) * tile
    return everything if dtype in HALF else min(256, everything)


SHORT = 64
"""Up to so many rows a product normalises its rows itself, once for each tile of outputs: they stay
in the first-level cache, and a launch is saved. Taller inputs are normalised once, by a kernel of
its own."""

_LINEAR_HALF = (
    # A batch of one image: the weights' way from memory is all that counts. As many programs as
    # the width gives (64 of MAR-B's head), each with 4 x 4 KB of weights in flight.
    (16, LinearTile(rows=16, outputs=16, inputs=128, warps=4, stages=4)),
    # Few images: still bound by the weights, which all rows share.
    (SHORT, LinearTile(rows=32, outputs=32, inputs=64, warps=4, stages=4)),
    # Bound by the tensor cores: 128 x 128, whose two factors come 64 products a number loaded.
    (None, LinearTile(rows=128, outputs=128, inputs=64, warps=8, stages=3)),
)
_LINEAR_FLOAT32 = (
    # The same three cases; multiplied by FMA, so factors are held in registers.
    (16, LinearTile(rows=16, outputs=16, inputs=64, warps=4, stages=3)),
    (SHORT, LinearTile(rows=32, outputs=32, inputs=32, warps=4, stages=3)),
    (None, LinearTile(rows=64, outputs=64, inputs=16, warps=8, stages=3)),
)


def linear(rows: int, dtype: torch.dtype, rows_dtype: torch.dtype) -> LinearTile:
    """The tile for so many rows, of rows_dtype; dtype is the weights'. Tall float32 rows take twice
    the shared memory that half precision takes, so they have a stage fewer: gfx942 has 64 KB."""
    table = _LINEAR_HALF if dtype in HALF else _LINEAR_FLOAT32
    tile = next(tile for most, tile in table if most is None or rows <= most)
    wide = dtype in HALF and rows_dtype not in HALF and rows > SHORT
    return tile._replace(stages=tile.stages - 1) if wide else tile


class AttentionTile(NamedTuple):
    """A program's queries, and how many keys it takes at a time."""

    queries: int
    keys: int
    warps: int
    stages: int


_ATTENTION_HALF = (
    # The last decoder block: few queries an image.
    (16, AttentionTile(queries=16, keys=64, warps=4, stages=3)),
    # MAR's 320 positions are 5 tiles: 60 programs an image of MAR-B.
    (None, AttentionTile(queries=64, keys=64, warps=4, stages=3)),
)
_ATTENTION_HALF_WIDE = (
    # Heads of more than 80, where 64 keys would spill on sm_80 and pass gfx942's 64 KB.
    (16, AttentionTile(queries=16, keys=32, warps=4, stages=3)),
    (None, AttentionTile(queries=64, keys=32, warps=4, stages=3)),
)
_ATTENTION_FLOAT32 = (
    (16, AttentionTile(queries=16, keys=32, warps=4, stages=2)),
    # 32 keys would spill.
    (None, AttentionTile(queries=32, keys=16, warps=4, stages=2)),
)


def attention(queries: int, head_dim: int, dtype: torch.dtype) -> AttentionTile:
    """The tile for so many queries."""
    if dtype not in HALF:
        table = _ATTENTION_FLOAT32
    else:
        table = _ATTENTION_HALF if head_dim <= 80 else _ATTENTION_HALF_WIDE
    return next(tile for most, tile in table if most is None or queries <= most)


def head_dims(head_dim: int) -> tuple[int, int]:
    """A head's dimension as two powers of two, of 16 and more, or of one and 0, with the least
    padding: 64 is 64 + 0, MAR-H's 80 is 64 + 16, and no 128."""
    whole = max(16, power_of_two(head_dim))
    rest = max(16, power_of_two(head_dim - whole // 2))
    return (whole // 2, rest) if rest < whole // 2 else (whole, 0)


ELEMENTS = 1024
"""Numbers that a program of an elementwise kernel takes: 8 a thread of 4 warps."""

POSITIONS, CHANNELS = 64, 32
"""A tile of `group_norm_silu`: 32 channels are 128 bytes of float32, whole sectors of a
channels_last map; 64 positions keep 16 numbers a thread in flight."""

CHUNK = 1024
"""Positions whose moments are taken together: 64 chunks at 256 x 256 positions, so that all
processors have some, and few numbers are left to combine."""


def row_warps(block: int) -> int:
    """Warps for a row held in registers: 8 numbers a thread, 16 warps at most."""
    return min(16, max(1, block // 256))


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << max(0, size - 1).bit_length()


def tiles(size: int, tile: int) -> int:
    """How many tiles cover `size`."""
    return -(-size // tile)
