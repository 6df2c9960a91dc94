"""What the head's ops share: its spec, its sizes, read off its weights, and its options."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from marfast.ops import checks
from marfast.ops.op import Args
from marfast.ops.runtime import DTYPES, Verdict
from marfast.reference.diffusion import HeadOptions
from marfast.reference.head_spec import MAR_HEAD, HeadSpec
from marfast.reference.head_weights import depth_of, layout, sizes_of

_LETTERS = ("C", "D", "w", "d", "F", "h")
"""Of a `HeadShape`'s fields, in layouts."""


class HeadShape(NamedTuple):
    """A head's sizes."""

    channels: int
    condition: int
    width: int
    depth: int
    frequencies: int
    hidden: int
    """The width of its MLPs; the head's own where there are none."""

    @classmethod
    def of(cls, weights: Sequence[Tensor], spec: HeadSpec = MAR_HEAD) -> "HeadShape":
        """The sizes of a head's weights in the order of its state_dict.

        Raises ValueError or TypeError naming the entry that doesn't fit.
        """
        dtypes, depth = (*DTYPES, torch.float64), depth_of(spec, len(weights))
        labels, found = _labels(spec, depth), {"d": depth}
        for letter, place, dim, times in _places(spec, depth):
            label, letters = labels[place]
            given = checks.first(label, weights[place], letters, dtypes)
            found[letter] = given[dim] // times
        shape = cls(*(found.get(letter, found["w"]) for letter in _LETTERS))
        if min(shape._replace(depth=1)) < 1:
            raise ValueError(f"weights are a head's of sizes {shape}; allowed are sizes from 1")
        like, own = weights[0], (weights[0].dtype,)
        expected = zip(weights, shape.expected(spec), labels, strict=True)
        for weight, sizes, (label, letters) in expected:
            checks.like(label, weight, letters, sizes, own, like, "weights[0]")
        return shape

    def expected(self, spec: HeadSpec = MAR_HEAD) -> list[tuple[int, ...]]:
        """The shape of each weight."""
        sizes = dict(zip(_LETTERS, self, strict=True))
        lettered = [letters for _, letters in layout(spec, self.depth)]
        known = {letters: sizes_of(letters, sizes) for letters in set(lettered)}
        return [known[letters] for letters in lettered]


@functools.lru_cache(maxsize=64)
def _places(spec: HeadSpec, depth: int) -> list[tuple[str, int, int, int]]:
    """Where each size is read: its letter; a weight's place, the dimension, and how many times the
    size that has."""
    found: dict[str, tuple[str, int, int, int]] = {}
    for place, (_, letters) in enumerate(layout(spec, depth)):
        for dim, size in enumerate(letters.split(", ")):
            found.setdefault(size[-1], (size[-1], place, dim, int(size[:-1] or 1)))
    return [*found.values()]


@functools.lru_cache(maxsize=64)
def _labels(spec: HeadSpec, depth: int) -> list[tuple[str, str]]:
    """How errors call each weight, and its sizes' letters."""
    return [
        (f"weights[{place}] ({name})", letters)
        for place, (name, letters) in enumerate(layout(spec, depth))
    ]


def spec_of(a: Args) -> HeadSpec:
    """The spec that an op's bound arguments name."""
    return HeadSpec.of(a.spec)


def options_of(a: Args, branches: int = 1) -> HeadOptions:
    """The options that an op states, from its arguments; the others as they are by default."""
    return HeadOptions(branches, **{name: getattr(a, name) for name in _stated(a._fields)})


@functools.cache
def _stated(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in HeadOptions._fields)


def branches_of(name: str, rows: int, tokens: int) -> int:
    """How many rows, of the argument `name`, a token has."""
    branches = rows // tokens if tokens else 1
    if branches not in (1, 2, 3) or rows != branches * tokens:
        raise ValueError(
            f"{name} has {rows} rows; it must have N = {tokens}, or "
            f"2N = {2 * tokens} or 3N = {3 * tokens} under guidance"
        )
    return branches


def check_threshold(a: Args) -> None:
    """Of an op's bound arguments: what limits x_0."""
    if not 0.0 <= a.dynamic_threshold <= 1.0:
        raise ValueError(
            f"dynamic_threshold is {a.dynamic_threshold}; it must be a quantile, from 0 (none) to 1"
        )
    if a.dynamic_threshold and a.clip_denoised:
        raise ValueError(
            f"dynamic_threshold is {a.dynamic_threshold} and clip_denoised True; x_0 is limited by "
            "one or the other"
        )


def takes_threshold(a: Args) -> Verdict:
    """Whether kernels that sort nothing take this call; if not, why."""
    if a.dynamic_threshold:
        return False, "x_0 is limited by a quantile of itself; the kernel clips to [-1, 1] alone"
    return True, ""


def takes_update(a: Args, branches: int) -> Verdict:
    """Whether kernels that sort nothing, made for guidance of two branches, take this one; if not,
    why."""
    if branches > 2:
        return False, f"guidance has {branches} branches; the kernel takes 2"
    return takes_threshold(a)


def takes_mars(a: Args) -> Verdict:
    """Whether kernels made for MAR's head take this one; if not, why."""
    if own := str(spec_of(a)):
        return False, f"the head has {own}; the kernel takes MAR's"
    shape = HeadShape.of(a.weights)
    if shape.hidden != shape.width:
        return (
            False,
            f"MLPs are {shape.hidden} wide in a head of {shape.width}; the kernel takes MAR's",
        )
    return True, ""
