"""The per-token diffusion head's tensors by name, for any spec."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from marfast.reference.head_spec import MAR_HEAD, HeadSpec


class Layer(NamedTuple):
    """The tensors of a linear layer."""

    weight: Tensor
    bias: Tensor | None


class Affine(NamedTuple):
    """What a norm multiplies by and adds."""

    weight: Tensor | None = None
    bias: Tensor | None = None


class TimeWeights(NamedTuple):
    """A `TimestepEmbedder`'s tensors."""

    mlp_in: Layer
    mlp_out: Layer
    norm: Affine


class BlockWeights(NamedTuple):
    """A `ResBlock`'s tensors."""

    norm: Affine
    mlp_in: Layer
    mlp_out: Layer
    norm_after: Affine
    modulation: Layer | None
    """None where the block takes that of the one before it."""


class HeadWeights(NamedTuple):
    """A head's tensors by name."""

    times: tuple[TimeWeights, ...]
    cond: tuple[Layer, ...]
    input: Layer
    blocks: tuple[BlockWeights, ...]
    final: Layer
    final_modulation: Layer

    @classmethod
    def of(cls, weights: Sequence[Tensor], spec: HeadSpec = MAR_HEAD) -> "HeadWeights":
        """From the values of its state_dict, in order."""
        depth = depth_of(spec, len(weights))
        named = dict(zip((name for name, _ in layout(spec, depth)), weights, strict=True))

        def layer(name: str) -> Layer:
            return Layer(named[f"{name}.weight"], named.get(f"{name}.bias"))

        def affine(name: str) -> Affine:
            return Affine(named.get(f"{name}.weight"), named.get(f"{name}.bias"))

        def block(b: int) -> BlockWeights:
            name = f"res_blocks.{b}"
            return BlockWeights(
                affine(f"{name}.in_ln"),
                layer(f"{name}.mlp.0"),
                layer(f"{name}.mlp.2"),
                affine(f"{name}.mlp.3"),
                layer(f"{name}.adaLN_modulation.1") if b % spec.share == 0 else None,
            )

        return cls(
            tuple(
                TimeWeights(layer(f"{time}.mlp.0"), layer(f"{time}.mlp.2"), affine(f"{time}.mlp.3"))
                for time in _time_names(spec)
            ),
            tuple(map(layer, _condition_names(spec))),
            layer("input_proj"),
            tuple(map(block, range(depth))),
            layer("final_layer.linear"),
            layer("final_layer.adaLN_modulation.1"),
        )

    @property
    def modulations(self) -> tuple[Layer, ...]:
        """Those of blocks that have one, then the end's."""
        own = (block.modulation for block in self.blocks)
        return (*(layer for layer in own if layer is not None), self.final_modulation)


@functools.lru_cache(maxsize=64)
def layout(spec: HeadSpec, depth: int) -> tuple[tuple[str, str], ...]:
    """The name and the sizes of each tensor, in the order of the state_dict: "w, D" is a weight
    from D condition channels to the head's width. C: channels of a token, F: frequencies of a
    timestep, h: width of an MLP. MAR's names, but `mlp.3` for a norm after an MLP, `cond_embed.0`
    and `.2` for one of the condition, and `time_embed.i` where there are several times."""
    return tuple(_layout(spec, depth))


def _layout(spec: HeadSpec, depth: int) -> Iterator[tuple[str, str]]:
    def linear(name: str, outputs: str, inputs: str) -> Iterator[tuple[str, str]]:
        yield f"{name}.weight", f"{outputs}, {inputs}"
        if spec.bias:
            yield f"{name}.bias", outputs

    def norm(name: str, kind: str) -> Iterator[tuple[str, str]]:
        yield f"{name}.weight", "w"
        if kind == "layer":
            yield f"{name}.bias", "w"

    for time in _time_names(spec):
        yield from linear(f"{time}.mlp.0", "w", "F")
        yield from linear(f"{time}.mlp.2", "w", "w")
        if spec.time_norm != "none":
            yield from norm(f"{time}.mlp.3", spec.time_norm)
    first, *others = _condition_names(spec)
    yield from linear(first, "w", "D")
    for other in others:
        yield from linear(other, "w", "w")
    yield from linear("input_proj", "w", "C")
    for b in range(depth):
        block = f"res_blocks.{b}"
        if spec.affine:
            yield from norm(f"{block}.in_ln", spec.norm)
        yield from linear(f"{block}.mlp.0", "2h" if spec.gated else "h", "w")
        yield from linear(f"{block}.mlp.2", "w", "h")
        if spec.norm_after:
            yield from norm(f"{block}.mlp.3", spec.norm)
        if b % spec.share == 0:
            yield from linear(f"{block}.adaLN_modulation.1", "3w", "w")
    yield from linear("final_layer.linear", "2C" if spec.variance else "C", "w")
    yield from linear("final_layer.adaLN_modulation.1", "2w", "w")


def sizes_of(letters: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The numbers that a layout's letters stand for: "2h, w" of {"h": 3, "w": 5} is (6, 5)."""
    return tuple(int(size[:-1] or 1) * sizes[size[-1]] for size in letters.split(", "))


def depth_of(spec: HeadSpec, tensors: int) -> int:
    """How many blocks a head of so many tensors has. ValueError where none has so many."""
    others = len(layout(spec, 0))
    first = len(layout(spec, 1)) - others  # tensors of a block that has a modulation,
    later = first - 1 - spec.bias  # and of one that has none
    groups, rest = divmod(tensors - others, first + (spec.share - 1) * later)
    more, left = divmod(rest - first, later) if rest else (-1, 0)
    if tensors < others or left or (rest and more < 0):
        own = f" with {spec}" if str(spec) else ""
        raise ValueError(
            f"weights has {tensors} tensors; a head{own} of d blocks has {others} + {first} d"
            f"{', or fewer where they share a modulation' if spec.share > 1 else ''}: "
            "the values of its state_dict, in order"
        )
    return groups * spec.share + more + 1


def _time_names(spec: HeadSpec) -> list[str]:
    if spec.times == 1:
        return ["time_embed"]
    return [f"time_embed.{i}" for i in range(spec.times)]


def _condition_names(spec: HeadSpec) -> list[str]:
    return ["cond_embed.0", "cond_embed.2"] if spec.condition == "mlp" else ["cond_embed"]
