"""Somebody else's MAR, made fast in place: `accelerate`, and `restore`, which undoes it."""

import logging
import warnings
from typing import Any, TypeVar

import torch
from torch import nn

from marfast import ops
from marfast.drop_in.chosen import Chosen
from marfast.drop_in.find import Finding, candidates, findings
from marfast.drop_in.install import install, uninstall
from marfast.drop_in.methods import FastMethod
from marfast.drop_in.sample_tokens import no_mar
from marfast.errors import ArgumentError
from marfast.generation import Pipeline
from marfast.model.mar import check_dtype
from marfast.ops.choice import BackendName

__all__ = ["Finding", "accelerate", "findings", "restore"]

Module = TypeVar("Module", bound=nn.Module | Pipeline)

log = logging.getLogger("marfast")


def accelerate(
    module: Module,
    backend: BackendName = "auto",
    dtype: torch.dtype | None = None,
    *,
    sampler: str | None = None,
    steps: int | str | None = None,
    eta: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    training: bool = False,
) -> Module:
    """Make the own methods of a MAR, or of a model that has MAR's head, fast: same arguments, seeds
    and random draws, same results within the bounds of docs/numerics.md.

    In the module and everything inside it, `sample_tokens` of a MAR, `sample` of a DiffLoss and
    `forward` of a SimpleMLPAdaLN and of a MAR's blocks (where no gradient is recorded) are
    replaced: LTH14/mar's, `marfast.reference`'s, or any with the same parameter names that computes
    the same in a trial at the first call; so are the loops and heads of other models that
    `marfast.drop_in.heads` knows (docs/models.md). Parameters stay the module's own and may change
    at any time. In training mode (but for the loss, if that is asked for), where gradients are
    recorded, and for everything else, the module's own code runs; a RuntimeWarning says so where
    nothing can be made fast. Logger "marfast" tells, at level INFO, what was replaced and what was
    left; `marfast.findings(module)` is the same as data.

    Args:
        module: what to make fast, in place. What `marfast.load` returned is fast: it takes dtype
            and sampler as its own.
        backend: "auto", or one of the backends that `marfast info` lists.
        dtype: what products are computed in, as torch.autocast would: torch.bfloat16 or
            torch.float16; torch.float32 turns an autocast round the call off. None takes what is
            in force: autocast's, or the parameters'. Parameters stay as they are; sums, LayerNorm,
            the head's residual stream and its sampling are float32 always.
        sampler, steps, eta, guidance_interval: another sampler for `sample_tokens` and `sample`
            than the module's, as in `marfast.load(…).generate`; images then are others than its
            own. None: the module's steps, DDPM, with guidance in all of them.
        training: in training mode, `forward_loss` of a MAR and `forward` of a DiffLoss, too, by
            `ops.diffusion_loss`: the loss of the masked tokens alone, with activations of a few
            rows at a time.

    Returns:
        The same object.

    Raises:
        TypeError: there is no MAR, DiffLoss or SimpleMLPAdaLN in it.
        ValueError: an unknown backend, dtype or sampler, or steps that it can't take.
    """
    check_dtype(dtype)
    if isinstance(module, Pipeline):
        settings = {"sampler": sampler, "steps": steps, "eta": eta}
        _set(module, backend, dtype, settings | {"guidance_interval": guidance_interval})
        return module
    chosen = Chosen.of(sampler=sampler, steps=steps, eta=eta, guidance_interval=guidance_interval)
    with ops.backend(backend):
        pass
    restore(module)
    found = [*candidates(module, training)]
    if not found:
        raise TypeError(
            f"module: {type(module).__name__} has no MAR, DiffLoss or SimpleMLPAdaLN in it that "
            f"can be made fast ({no_mar(module)})"
        )
    for part, method, _ in found:
        method.check(part, chosen)
    methods: dict[nn.Module, list[FastMethod]] = {}
    for part, method, finding in found:
        log.info("%s", finding)
        if not finding.left:
            methods.setdefault(part, []).append(method(backend, dtype, chosen))
    for part, replaced in methods.items():
        install(part, replaced)
    replaced = [method for found in methods.values() for method in found]
    missing = "nothing" if not replaced else ""
    if training and not any(method.in_training for method in replaced):
        missing = missing or "no loss"
    if missing:
        reasons = "; ".join(str(finding) for _, _, finding in found if finding.left)
        warnings.warn(f"{missing} was made fast: {reasons}", RuntimeWarning, stacklevel=2)
    return module


def _set(
    pipeline: Pipeline, backend: str, dtype: torch.dtype | None, settings: dict[str, Any]
) -> None:
    """What `accelerate` does to a loaded model, which is fast."""
    if backend != "auto":
        allowed = 'allowed is "auto" for a loaded model; with marfast.backend(…) forces one'
        raise ArgumentError("backend", repr(backend), allowed)
    pipeline.settings = pipeline.settings.replace(pipeline.model.module.seq_len, **settings)
    pipeline.model.dtype = dtype or pipeline.model.dtype
    log.info("%s: loaded by marfast, and fast", type(pipeline).__name__)


def restore(module: Module) -> Module:
    """Undo `accelerate`: the module's own methods are back. Returns the same object."""
    if isinstance(module, Pipeline):
        return module
    for part in module.modules():
        uninstall(part)
    return module
