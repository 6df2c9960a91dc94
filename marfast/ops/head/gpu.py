"""`denoise`: the whole head once, as launches of `fused_linear_kernel` and `silu_sum_kernel`.

    T = W2 SiLU(W1 e(t) + b1) + b2, c = W_c z + b_c        2 + 1 launches
    M = modulation(T, c)                                   d + 2
    x = W_in x + b_in                                      1
    x = adaln_mlp(x, M[i], ...) for each block             2 d
    out = W_out layer_norm_modulate(x, M[d]) + b_out       1

The residual stream and M are float32 whatever the weights are; factors of products have the
weights' dtype. Rows are taken so many at a time that M keeps within tiles.MODULATION_BYTES.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import tiles
from .adaln_mlp import adaln_mlp
from .fused_linear import launch
from .modulation import modulation


class Head(NamedTuple):
    """A head's weights, by their places in a `SimpleMLPAdaLN`'s state_dict."""

    weights: Sequence[Tensor]

    @property
    def width(self) -> int:
        return self.weights[0].shape[0]

    @property
    def frequencies(self) -> int:
        return self.weights[0].shape[1]

    @property
    def projections(self) -> list[tuple[Tensor, Tensor]]:
        """Each block's adaLN (W, b), and the final layer's."""
        places = (*range(14, len(self.weights) - 4, 8), len(self.weights) - 2)
        return [(self.weights[i], self.weights[i + 1]) for i in places]

    def pairs(self, budget: int) -> int:
        """How many pairs of a step and a row have their modulation in so many bytes: at least 1."""
        return max(1, budget // (4 * sum(len(weight) for weight, _ in self.projections)))

    def time(self, embedding: Tensor) -> Tensor:
        """e(t) [P, frequencies] -> T [P, w]."""
        w1, b1, w2, b2 = self.weights[:4]
        hidden = embedding.new_empty((len(embedding), self.width), dtype=w1.dtype)
        launch(hidden, embedding, w1, b1, activation="silu", factor=True)
        return launch(embedding.new_empty((len(embedding), self.width)), hidden, w2, b2)

    def cond(self, z: Tensor) -> Tensor:
        """z [R, D] -> c [R, w] float32."""
        out = z.new_empty((len(z), self.width), dtype=torch.float32)
        return launch(out, z, *self.weights[4:6])

    def __call__(self, x: Tensor, modulations: Sequence[Tensor], out: Tensor) -> Tensor:
        """x [R, C], each block's modulation [R, 3 w] and the final one [R, 2 w] -> out [R, 2C]."""
        width = self.width
        stream = x.new_empty((len(x), width), dtype=torch.float32)
        launch(stream, x, *self.weights[6:8])
        for i, three in zip(range(8, len(self.weights) - 4, 8), modulations, strict=False):
            ln_weight, ln_bias, w1, b1, w2, b2 = self.weights[i : i + 6]
            shift, scale, gate = three.split(width, dim=1)
            mlp = (ln_weight, ln_bias, w1, b1, w2, b2, 1e-6)
            adaln_mlp(stream, shift, scale, gate, *mlp, out=stream)
        final_w, final_b = self.weights[-4:-2]
        shift, scale = modulations[-1].split(width, dim=1)
        return launch(out, stream, final_w, final_b, norm=True, modulation=(shift, scale))


@functools.lru_cache(maxsize=16)
def _rates(frequencies: int, device: torch.device) -> Tensor:
    """The sinusoids' angular frequencies, computed on the CPU as the reference does; kept, so that
    a capture finds them on the device."""
    half = frequencies // 2
    with torch.device("cpu"):
        exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32) / half
        return torch.exp(exponents).to(device)


def time_embedding(t: Tensor, frequencies: int) -> Tensor:
    """e(t) [P, frequencies]: the reference's cosines and sines, without a word to the host."""
    angles = t[:, None].float() * _rates(frequencies, t.device)[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return torch.nn.functional.pad(embedding, (0, frequencies % 2))


def denoise(
    x: Tensor, t: Tensor, cond: Tensor, weights: Sequence[Tensor], packed: Tensor | None
) -> Tensor:
    """The op. `packed` is the CPU's, and not read."""
    head = Head(weights)
    out = x.new_empty((len(x), 2 * x.shape[1]))
    group = head.pairs(tiles.MODULATION_BYTES)
    embedding = time_embedding(t, head.frequencies)
    for first in range(0, len(x), group):
        rows = slice(first, first + group)
        time, c = head.time(embedding[rows]), head.cond(cond[rows])
        head(x[rows], modulation(time, c, 1, head.projections), out[rows])
    return out
