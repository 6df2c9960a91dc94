"""Kinds of heads: how each names its parameters, and what a spec's choices are in it."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marfast.model.own import named_parameters_of
from marfast.ops.head import HeadShape
from marfast.reference.head_spec import MAR_HEAD, HeadSpec
from marfast.reference.head_weights import layout

Named = Mapping[str, Tensor]


class HeadParameters(NamedTuple):
    """A module's parameters, as a head's of this spec."""

    spec: HeadSpec
    parts: list[tuple[Tensor, ...]]
    """Those of each weight, in the ops' order: several where the ops' one is theirs joined."""

    @property
    def flat(self) -> list[Tensor]:
        return [tensor for tensors in self.parts for tensor in tensors]

    @property
    def joins(self) -> bool:
        return any(len(tensors) > 1 for tensors in self.parts)

    def joined(self, flat: Sequence[Tensor]) -> list[Tensor]:
        """The ops' weights, of what stands in for `flat`."""
        given = iter(flat)
        groups = [[next(given) for _ in tensors] for tensors in self.parts]
        return [group[0] if len(group) == 1 else torch.cat(group) for group in groups]


@dataclass(frozen=True)
class HeadKind:
    """Heads whose parameters are named alike."""

    whose: str
    """In messages: "MAR's"."""
    told_by: tuple[str, ...]
    """Attributes that such a head has."""
    built: Callable[[Any], bool] = lambda net: True
    """What else tells it from those with the same attributes."""
    blocks: str = "res_blocks"
    """What its blocks are called."""
    spec: Callable[[Any, Named], HeadSpec] = lambda net, found: MAR_HEAD
    """Its choices, of a module and its parameters by name; KeyError where one lacks."""
    theirs: Callable[[str, HeadSpec], Sequence[str]] = lambda name, spec: (name,)
    """From the ops' name of a parameter (`head_weights.layout`) to the head's own: more than one
    where the ops' is these joined."""
    forward: Callable[[Any, Tensor, Tensor, Tensor], Tensor] = lambda net, x, t, cond: net.forward(
        x, t, cond
    )
    """The module's own forward, of x [R, C], t [R] or [R, times] and cond [R, D]."""
    largest_time: float = 999.0
    """What it is told at most; an integer where that is more than 1."""

    def is_like(self, net: Any) -> bool:
        """Whether a module has such a head's parts."""
        return all(hasattr(net, name) for name in self.told_by) and self.built(net)

    def parameters(self, net: Any) -> HeadParameters:
        """Of a module that is built as these heads are; ValueError says why it isn't."""
        found = named_parameters_of(net) if isinstance(net, nn.Module) else {}
        try:
            spec = self.spec(net, found)
        except KeyError as error:
            raise ValueError(f"it lacks {error.args[0]}") from None
        names = self._names(spec, tuple(found))
        parts = [tuple(found[name] for name in group) for group in names]
        made = HeadParameters(spec, parts)
        if special := [p for p in made.flat if type(p) not in (Tensor, nn.Parameter)]:
            raise ValueError(f"its parameters are {type(special[0]).__name__}")
        sizes = tuple(tuple((p.shape, p.dtype, p.device) for p in part) for part in parts)
        if reason := _do_not_fit(spec, sizes):
            raise ValueError(f"its parameters are not those of {self.whose} head: {reason}")
        return made

    def lacks(self, net: Any) -> str:
        """Why a module is not built as these heads are; empty if it is."""
        try:
            self.parameters(net)
        except ValueError as error:
            return str(error)
        return ""

    def example_times(self, spec: HeadSpec) -> Tensor:
        """[3], or [3, times]: from 0 to the largest one, on the CPU."""
        t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float32, device="cpu") * self.largest_time
        t = t.floor().long() if self.largest_time > 1 else t
        return t if spec.times == 1 else torch.stack([t, *[t.flip(0)] * (spec.times - 1)], dim=1)

    @functools.lru_cache(maxsize=16)  # noqa: B019 (kinds are constants)
    def _names(self, spec: HeadSpec, found: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Those of each of the ops' weights, of a module whose parameters have these names."""
        numbers = (re.match(rf"{self.blocks}\.(\d+)\.", name) for name in found)
        depth = 1 + max((int(number[1]) for number in numbers if number), default=-1)
        names = [tuple(self.theirs(name, spec)) for name, _ in layout(spec, depth)]
        wanted = [name for group in names for name in group]
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(f"it lacks {missing[0]}")
        if extra := [name for name in found if name not in wanted]:
            raise ValueError(f"it has {extra[0]}, which {self.whose} head has not")
        return names


@functools.lru_cache(maxsize=64)
def _do_not_fit(spec: HeadSpec, sizes: tuple[tuple[Any, ...], ...]) -> str:
    """Why weights joined of such (shape, dtype, device) are no head's; empty if they are."""
    if len(devices := {device for part in sizes for _, _, device in part}) > 1:
        return f"they are on {' and '.join(sorted(map(str, devices)))}"
    stand_ins = [
        [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype, _ in part]
        for part in sizes
    ]
    try:
        HeadShape.of([torch.cat(part) for part in stand_ins], spec)
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    return ""


def has_variance(found: Named) -> bool:
    """Whether a head with MAR's names at both ends has 2C outputs, as where it can't be told."""
    final, first = found.get("final_layer.linear.weight"), found.get("input_proj.weight")
    return final is None or first is None or len(final) != first.shape[1]


def _mars_spec(net: Any, found: Named) -> HeadSpec:
    return HeadSpec(variance=has_variance(found))


MARS = HeadKind("MAR's", ("time_embed", "cond_embed"), spec=_mars_spec)
"""MAR's, and those with its names and C outputs."""
