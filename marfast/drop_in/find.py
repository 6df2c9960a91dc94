"""What `accelerate` can replace in a module, told by the names of its parts and parameters."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from torch import nn

from marfast.drop_in.heads import FORWARDS, LOOPS
from marfast.drop_in.install import installed
from marfast.drop_in.loss import FastDiffLoss, FastForwardLoss
from marfast.drop_in.methods import FastBlockForward, FastMethod
from marfast.drop_in.sample import FastSample
from marfast.drop_in.sample_tokens import FastSampleTokens


@dataclass(frozen=True)
class Finding:
    """A method that `accelerate` replaces in a module, or leaves."""

    path: str
    """Of the module it belongs to, from the one given; empty for that one itself."""
    method: str
    left: str
    """Why it is left as it is; empty where it is replaced."""

    def __str__(self) -> str:
        name = f"{self.path}.{self.method}".lstrip(".")
        return f"{name}: left as it is: {self.left}" if self.left else f"{name}: replaced"


class _Kind(NamedTuple):
    """A kind of method, and how its owner is told by its parts."""

    method: type[FastMethod]
    is_owner: Callable[[nn.Module], bool]


_KINDS = (
    _Kind(
        FastSampleTokens,
        is_owner=lambda module: hasattr(module, "mask_token") and hasattr(module, "diffloss"),
    ),
    _Kind(
        FastSample,
        is_owner=lambda module: hasattr(module, "gen_diffusion") and hasattr(module, "net"),
    ),
)

_LOSSES = (
    _Kind(
        FastForwardLoss,
        is_owner=lambda module: hasattr(module, "mask_token") and hasattr(module, "diffloss"),
    ),
    _Kind(
        FastDiffLoss,
        is_owner=lambda module: hasattr(module, "train_diffusion") and hasattr(module, "net"),
    ),
)


def candidates(
    module: nn.Module, training: bool
) -> Iterator[tuple[nn.Module, type[FastMethod], Finding]]:
    """Each method that is of a kind to be replaced, losses if they are asked for: its owner, what
    would replace it, and whether that can."""
    for path, part in module.named_modules():
        for method, is_owner in (*_KINDS, *_LOSSES) if training else _KINDS:
            if is_owner(part):
                yield part, method, Finding(path, method.name, _why_left(part, method))
        for method in _of_heads(part):
            yield part, method, Finding(path, method.name, _why_left(part, method))
        if _KINDS[0].is_owner(part):
            for name, block in _blocks(part):
                finding = Finding(
                    f"{path}.{name}".lstrip("."), "forward", _why_left(block, FastBlockForward)
                )
                yield block, FastBlockForward, finding


def _of_heads(part: nn.Module) -> Iterator[type[FastMethod]]:
    """The loop and the forward that a module has, of those known."""
    yield from islice((loop for loop in LOOPS if loop.is_owner(part)), 1)
    yield from islice((forward for forward in FORWARDS if forward.is_owner(part)), 1)


def _blocks(mar: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A MAR's transformer blocks."""
    for name in ("encoder_blocks", "decoder_blocks"):
        blocks = getattr(mar, name, None)
        if isinstance(blocks, nn.ModuleList):
            yield from ((f"{name}.{i}", block) for i, block in enumerate(blocks))


def _why_left(part: nn.Module, method: type[FastMethod]) -> str:
    """By looking at it, and by what calls found out."""
    if reason := method.lacks(part):
        return reason
    fast = installed(part).get(method.name)
    return "; ".join(dict.fromkeys(fast.found())) if fast else ""


def findings(module: nn.Module) -> list[Finding]:
    """What `accelerate` replaces in a module, and what it leaves, and why; losses too once it has
    replaced one. A method that turned out to compute something else, when it was first called, is
    left."""
    methods = [method for part in module.modules() for method in installed(part).values()]
    training = any(method.in_training for method in methods)
    return [finding for _, _, finding in candidates(module, training)]
