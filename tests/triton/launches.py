"""Every kernel and configuration, as launches at the sizes of MAR-B and MAR-H; nothing runs."""

from collections.abc import Callable
from typing import Any

import torch

from marfast.ops.head import HeadShape
from marfast.ops.head.gpu import Head
from marfast.ops.head.triton import Launches
from marfast.ops.op import OPS

from .ahead import empty

ROWS = (2, 40, 200)
"""One for each tile of products."""


def head_weights(width: int, depth: int, dtype: torch.dtype) -> list[torch.Tensor]:
    shape = HeadShape(16, condition=768, width=width, depth=depth, frequencies=256, hidden=width)
    return [empty(*sizes, dtype=dtype) for sizes in shape.expected()]


def run(op: str, *args: Any) -> None:
    OPS[op].backends["triton"].run(OPS[op].bind(*args))


def products(rows: int, dtype: torch.dtype, width: int = 1024) -> None:
    """The head's: its block, its first and last layer; and a transformer's."""
    head = Head(head_weights(width, 1, dtype), Launches())
    head(empty(rows, 32), empty(rows, 16), empty(rows, 5 * width))
    head.time(empty(rows, 256))
    head.condition(empty(rows, 768))
    head.modulation(empty(1, width), empty(rows, width), rows)
    weight, bias = empty(3072, 768, dtype=dtype), empty(3072, dtype=dtype)
    x, vector = empty(rows, 768), empty(768)
    run("fused_linear", x, weight, bias, vector, vector, None, True)
    back, bias = empty(768, 3072, dtype=dtype), empty(768, dtype=dtype)
    run("fused_linear", empty(rows, 3072), back, bias, None, None, x)


def block_of_one_dtype(dtype: torch.dtype, width: int = 1024) -> None:
    x, vector = empty(2, width, dtype=dtype), empty(width, dtype=dtype)
    weight = empty(width, width, dtype=dtype)
    run("adaln_mlp", x, x, x, x, vector, vector, weight, vector, weight, vector)


def heads(head_dim: int, wanted: int | None, causal: bool, dtype: torch.dtype) -> None:
    qkv = empty(2, 320, 3, 12, head_dim, dtype=dtype)
    queries = None if wanted is None else torch.zeros(2, wanted, dtype=torch.int64)
    run("attention", qkv, queries, causal)


def norms(dtype: torch.dtype) -> None:
    vector = empty(128, dtype=dtype)
    x = empty(1, 128, 64, 64, dtype=dtype)
    run("group_norm_silu", x, vector, vector)
    x = x.contiguous(memory_format=torch.channels_last)
    run("group_norm_silu", x, vector, vector)
    run("group_norm_silu", x, vector, vector, 32, 1e-6, False)
    x, vector = empty(8, 1024, dtype=dtype), empty(1024, dtype=dtype)
    run("layer_norm_modulate", x, x, x, vector, vector)


def step(guided: bool, clip: bool, dtype: torch.dtype) -> None:
    x, output = empty(8, 16), empty(16 if guided else 8, 32, dtype=dtype)
    run("ddpm_step", x, output, x, empty(8), empty(1), 1.0, clip)
    multistep = empty(2, 8, 16)
    for state in (x, multistep):
        run("ddpm_step", state, output[:, :16], x, empty(8), empty(1), 1.0, clip, False)


def losses() -> None:
    from marfast.ops.diffusion_loss.rows import Chunk
    from marfast.ops.diffusion_loss.triton import terms

    tokens, t = empty(200, 16), torch.zeros(200, dtype=torch.int64)
    chunk = Chunk(slice(None), empty(50, 768), tokens, tokens, t, t, empty(200))
    for wanted in (False, True):
        terms(empty(200, 32), chunk, wanted)


def launches(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """By name, for factors of this dtype."""
    found: dict[str, Callable[[], Any]] = {}
    for rows in ROWS:
        found[f"{rows} rows, w 1024"] = lambda rows=rows: products(rows, dtype)
        found[f"{rows} rows, w 1536"] = lambda rows=rows: products(rows, dtype, 1536)
    found["one dtype"] = lambda: block_of_one_dtype(dtype)
    for head_dim in (64, 80, 128):
        for wanted in (4, None):
            causal = head_dim == 80  # one of both, for time
            label = f"hd {head_dim}, {'all' if wanted is None else wanted}"
            found[label] = lambda h=head_dim, w=wanted, c=causal: heads(h, w, c, dtype)
    found["norms"] = lambda: norms(dtype)
    found["loss"] = losses
    found["step"] = lambda: step(True, True, dtype)
    found["step, plain"] = lambda: step(False, False, dtype)
    return found
