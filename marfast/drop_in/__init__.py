"""Somebody else's MAR, made fast in place: `accelerate`, and `restore`, which undoes it."""

import logging
import warnings
from typing import TypeVar

import torch
from torch import nn

from marfast import ops
from marfast.drop_in.chosen import Chosen
from marfast.drop_in.find import Finding, candidates, findings
from marfast.drop_in.install import install, uninstall
from marfast.drop_in.methods import FastMethod
from marfast.drop_in.sample_tokens import no_mar
from marfast.model.mar import check_dtype

__all__ = ["Finding", "accelerate", "findings", "restore"]

Module = TypeVar("Module", bound=nn.Module)

log = logging.getLogger("marfast")


def accelerate(
    module: Module,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
    *,
    sampler: str | None = None,
    steps: int | str | None = None,
    eta: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> Module:
    """Make the own methods of a MAR, or of a model that has MAR's head, fast: same arguments, seeds
    and random draws, same results within the bounds of docs/numerics.md.

    In the module and everything inside it, `sample_tokens` of a MAR, `sample` of a DiffLoss and
    `forward` of a SimpleMLPAdaLN and of a MAR's blocks (where no gradient is recorded) are
    replaced: LTH14/mar's, `marfast.reference`'s, or any with the same parameter names that computes
    the same in a trial at the first call; so are the loops and heads of other models that
    `marfast.drop_in.heads` knows (docs/models.md). Parameters stay the module's own and may change
    at any time. In training mode, where gradients are recorded, and for everything else, the
    module's own code runs; a RuntimeWarning says so where nothing can be made fast. Logger
    "marfast" tells, at level INFO, what was replaced and what was left; `marfast.findings(module)`
    is the same as data.

    Args:
        module: what to make fast, in place.
        backend: "auto", or one of the backends that `marfast info` lists.
        dtype: what products are computed in, as torch.autocast would: torch.bfloat16 or
            torch.float16; torch.float32 turns an autocast round the call off. None takes what is
            in force: autocast's, or the parameters'. Parameters stay as they are; sums, LayerNorm,
            the head's residual stream and its sampling are float32 always.
        sampler, steps, eta, guidance_interval: another sampler for `sample_tokens` and `sample`
            than the module's, as in `marfast.load(…).generate`; images then are others than its
            own. None: the module's steps, DDPM, with guidance in all of them.

    Returns:
        The same object.

    Raises:
        TypeError: there is no MAR, DiffLoss or SimpleMLPAdaLN in it.
        ValueError: an unknown backend, dtype or sampler, or steps that it can't take.
    """
    check_dtype(dtype)
    chosen = Chosen.of(sampler=sampler, steps=steps, eta=eta, guidance_interval=guidance_interval)
    with ops.backend(backend):
        pass
    restore(module)
    found = [*candidates(module)]
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
    if not methods:
        reasons = "; ".join(str(finding) for _, _, finding in found)
        warnings.warn(f"nothing was made fast: {reasons}", RuntimeWarning, stacklevel=2)
    return module


def restore(module: Module) -> Module:
    """Undo `accelerate`: the module's own methods are back. Returns the same object."""
    for part in module.modules():
        uninstall(part)
    return module
