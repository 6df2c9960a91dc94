"""`marfast.accelerate`: somebody else's MAR, made fast, and `restore`, which undoes it."""

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from marfast import ops
from marfast.fast_methods import FastForward, FastMethod, FastSample, FastSampleTokens
from marfast.model.head import has_parameters_of_a_head
from marfast.model.mar import check_dtype

Module = TypeVar("Module", bound=nn.Module)

log = logging.getLogger("marfast")

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


def _no_mar(module: nn.Module) -> str:
    lacking = [*_lacks(module, nn.Module, _MODULES), *_lacks(module, nn.Parameter, _PARAMETERS)]
    return f"it lacks {', '.join(lacking)}" if lacking else ""


def _no_diffloss(module: nn.Module) -> str:
    process = getattr(module, "gen_diffusion", None)
    if lacking := [name for name in _PROCESS if not hasattr(process, name)]:
        return f"its gen_diffusion lacks {', '.join(lacking)}"
    return has_parameters_of_a_head(getattr(module, "net", None))


Kind = tuple[type[FastMethod], Callable[[nn.Module], bool], Callable[[nn.Module], str]]
_KINDS: tuple[Kind, ...] = (
    (FastSampleTokens, lambda m: hasattr(m, "mask_token") and hasattr(m, "diffloss"), _no_mar),
    (FastSample, lambda m: hasattr(m, "gen_diffusion") and hasattr(m, "net"), _no_diffloss),
    (
        FastForward,
        lambda m: hasattr(m, "time_embed") and hasattr(m, "cond_embed"),
        has_parameters_of_a_head,
    ),
)
"""Of each kind of method: how its owner is told by its parts, and what it may lack."""


def _candidates(module: nn.Module) -> Iterator[tuple[nn.Module, type[FastMethod], Finding]]:
    for path, part in module.named_modules():
        for method, is_meant, what_is_missing in _KINDS:
            if is_meant(part):
                left = what_is_missing(part) or _other_arguments(part, method)
                yield part, method, Finding(path, method.name, left)


def findings(module: nn.Module) -> list[Finding]:
    """What `accelerate` replaces in a module, and what it leaves, and why."""
    return [finding for _, _, finding in _candidates(module)]


def accelerate(module: Module, backend: str = "auto", dtype: torch.dtype | None = None) -> Module:
    """Make the own methods of a MAR, or of a model that has MAR's head, fast: same arguments, seeds
    and random draws, same results within the bounds of docs/numerics.md.

    In the module and everything inside it, `sample_tokens` of a MAR, `sample` of a DiffLoss and
    `forward` of a SimpleMLPAdaLN (where no gradient is recorded) are replaced: LTH14/mar's,
    `marfast.reference`'s, or any with the same parameter names, told by a known answer at the first
    call. Parameters stay the module's own and may change at any time. In training mode, where
    gradients are recorded, and for everything else, the module's own code runs. Logger "marfast"
    tells, at level INFO, what was replaced and what was left; `marfast.findings(module)` is the
    same as data.

    Args:
        module: what to make fast, in place.
        backend: "auto", or one of the backends that `marfast info` lists.
        dtype: what products are computed in, as torch.autocast would: torch.bfloat16 or
            torch.float16; torch.float32 turns an autocast round the call off. None takes what is
            in force: autocast's, or the parameters'. Parameters stay as they are; sums, LayerNorm,
            the head's residual stream and its sampling are float32 always.

    Returns:
        The same object.

    Raises:
        TypeError: nothing in it can be made fast; the message says why.
        ValueError: an unknown backend or dtype.
    """
    check_dtype(dtype)
    with ops.backend(backend):
        pass
    found = [*_candidates(module)]
    if not any(not finding.left for _, _, finding in found):
        reasons = [f"{finding.path or 'it'}: {finding.left}" for _, _, finding in found]
        raise TypeError(
            f"module: {type(module).__name__} has no MAR, DiffLoss or SimpleMLPAdaLN in it that "
            f"can be made fast ({'; '.join(reasons) or _no_mar(module)})"
        )
    restore(module)
    for part, method, finding in found:
        log.info("%s", finding)
        if not finding.left:
            part.__dict__[method.name] = method(part, backend, dtype)
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: the module's own methods are back. Returns the same object."""
    for part in module.modules():
        for method, _, _ in _KINDS:
            fast = part.__dict__.get(method.name)
            if isinstance(fast, method):
                del part.__dict__[method.name]
                if fast.replaced is not None:
                    part.__dict__[method.name] = fast.replaced
    return module
