"""How files name MAR's weights, and how those become the original's names.

Another layout, such as a port's with names of its own, is one more entry of `LAYOUTS`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """One way of naming weights."""

    name: str
    is_of: Callable[[Collection[str]], bool]
    """Whether these keys, all of a file's, are named so."""
    rename: Callable[[str], str]
    """The original's name for a key."""


def _prefixed(name: str, prefix: str) -> Layout:
    return Layout(
        name,
        lambda keys: bool(keys) and all(key.startswith(prefix) for key in keys),
        lambda key: key.removeprefix(prefix),
    )


ORIGINAL = Layout("original", lambda keys: True, lambda key: key)

LAYOUTS = (
    _prefixed("DDP of torch.compile", "module._orig_mod."),
    _prefixed("torch.compile of DDP", "_orig_mod.module."),
    _prefixed("DDP", "module."),
    _prefixed("torch.compile", "_orig_mod."),
    ORIGINAL,
)
"""The first that a file's keys are of is the file's."""


def to_original_names(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The name of these weights' layout, and the weights under the original's names."""
    layout = next(layout for layout in LAYOUTS if layout.is_of(weights.keys()))
    return layout.name, {layout.rename(key): value for key, value in weights.items()}
