"""The per-token diffusion head's tensors by name."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Layer(NamedTuple):
    """The two tensors of a linear layer, or of a LayerNorm's affine."""

    weight: Tensor
    bias: Tensor


class BlockWeights(NamedTuple):
    """A `ResBlock`'s tensors."""

    norm: Layer
    mlp_in: Layer
    mlp_out: Layer
    modulation: Layer


class HeadWeights(NamedTuple):
    """A `SimpleMLPAdaLN`'s tensors by name."""

    time_in: Layer
    time_out: Layer
    cond: Layer
    input: Layer
    blocks: tuple[BlockWeights, ...]
    final: Layer
    final_modulation: Layer

    @classmethod
    def of(cls, weights: Sequence[Tensor]) -> "HeadWeights":
        """From the values of its state_dict, in order."""
        layers = [Layer(*pair) for pair in zip(weights[::2], weights[1::2], strict=True)]
        ends = len(layers) - 2
        blocks = tuple(BlockWeights(*layers[i : i + 4]) for i in range(4, ends, 4))
        time_in, time_out, cond, input_ = layers[:4]
        return cls(time_in, time_out, cond, input_, blocks, *layers[ends:])
