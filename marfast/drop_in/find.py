"""What `accelerate` can replace in a module, told by the names of its parts and parameters."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from marfast.drop_in.methods import FastForward, FastMethod, FastSample, FastSampleTokens
from marfast.model.head import has_parameters_of_a_head

_MODULES = (
    "class_emb",
    "z_proj",
    "z_proj_ln",
    "encoder_blocks",
    "encoder_norm",
    "decoder_embed",
    "decoder_blocks",
    "decoder_norm",
    "diffloss.net",
)
_PARAMETERS = (
    "fake_latent",
    "mask_token",
    "encoder_pos_embed_learned",
    "decoder_pos_embed_learned",
    "diffusion_pos_embed_learned",
)
_PROCESS = ("betas", "timestep_map", "posterior_mean_coef1", "posterior_log_variance_clipped")


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


def _lacks(module: nn.Module, kind: type[Any], paths: tuple[str, ...]) -> list[str]:
    def found(path: str) -> bool:
        owner: Any = module
        for name in path.split("."):
            owner = getattr(owner, name, None)
        return isinstance(owner, kind)

    return [path for path in paths if not found(path)]


def _other_arguments(module: nn.Module, method: type[FastMethod]) -> str:
    own: Any = getattr(type(module), method.name, None)
    if own is None:
        return f"it has no method {method.name}"
    theirs = [*inspect.signature(own).parameters]
    ours = [*inspect.signature(method.__call__).parameters]
    if theirs[1:] != ours[1:]:
        return f"it takes ({', '.join(theirs[1:])}) where MAR's takes ({', '.join(ours[1:])})"
    return ""


def no_mar(module: nn.Module) -> str:
    """What a MAR has and `module` lacks; empty if nothing."""
    lacking = [*_lacks(module, nn.Module, _MODULES), *_lacks(module, nn.Parameter, _PARAMETERS)]
    return f"it lacks {', '.join(lacking)}" if lacking else ""


def _no_diffloss(module: nn.Module) -> str:
    process = getattr(module, "gen_diffusion", None)
    if lacking := [name for name in _PROCESS if not hasattr(process, name)]:
        return f"its gen_diffusion lacks {', '.join(lacking)}"
    return has_parameters_of_a_head(getattr(module, "net", None))


class _Kind(NamedTuple):
    """A kind of method, how its owner is told by its parts, and why it can't be replaced."""

    method: type[FastMethod]
    is_owner: Callable[[nn.Module], bool]
    what_is_missing: Callable[[nn.Module], str]


_KINDS = (
    _Kind(
        FastSampleTokens,
        is_owner=lambda module: hasattr(module, "mask_token") and hasattr(module, "diffloss"),
        what_is_missing=no_mar,
    ),
    _Kind(
        FastSample,
        is_owner=lambda module: hasattr(module, "gen_diffusion") and hasattr(module, "net"),
        what_is_missing=_no_diffloss,
    ),
    _Kind(
        FastForward,
        is_owner=lambda module: hasattr(module, "time_embed") and hasattr(module, "cond_embed"),
        what_is_missing=has_parameters_of_a_head,
    ),
)


def candidates(module: nn.Module) -> Iterator[tuple[nn.Module, type[FastMethod], Finding]]:
    """Each method that is of a kind to be replaced: its owner, what would replace it, and whether
    that can."""
    for path, part in module.named_modules():
        for method, is_owner, what_is_missing in _KINDS:
            if is_owner(part):
                left = what_is_missing(part) or _other_arguments(part, method)
                yield part, method, Finding(path, method.name, left)


def findings(module: nn.Module) -> list[Finding]:
    """What `accelerate` replaces in a module, and what it leaves, and why."""
    return [finding for _, _, finding in candidates(module)]
