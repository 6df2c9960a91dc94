"""The training loss, made fast: `forward` of a DiffLoss, `forward_loss` of a MAR, in training mode.

The same random numbers are drawn as by the module's own code, for all tokens; what is computed is
computed for those that the mask weighs.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from marfast.drop_in.methods import FastMethod, Own, told
from marfast.drop_in.sample import is_no_ddpm_head
from marfast.drop_in.trust import differs, tried
from marfast.model.head_kind import MARS
from marfast.model.loss import loss_of
from marfast.model.own import anyone_watches, is_touched, methods_set_on, parts_of
from marfast.model.packing import SAMPLES, autocast
from marfast.model.trial import trial_of
from marfast.reference.diffusion_loss import training_process


class _FastLoss(FastMethod):
    """What both methods have in common."""

    in_training = True
    trial_shape: ClassVar[tuple[int, ...]]
    """Of the tokens that are tried."""

    def refresh(self) -> None:
        """Nothing is kept of the weights."""

    @staticmethod
    @abstractmethod
    def diffloss_of(module: Any) -> Any:
        """The DiffLoss whose loss it is."""

    @abstractmethod
    def run(self, module: Any, target: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
        """By the op."""

    def loss(
        self, diffloss: Any, target: Tensor, z: Tensor, mask: Tensor | None, copies: int
    ) -> Tensor:
        """Of target [N, C], z [N, D], mask [N], each token at `copies` timesteps."""
        with self.backend_in_force(), autocast(target.device, self.dtype):
            return loss_of(diffloss, target, z, mask, copies)

    def may_run(self, module: Any, target: Tensor, z: Tensor, mask: Tensor | None) -> bool:
        """Whether the module is as it was found, nobody listens, and tensors [N, …] are as a MAR
        has them; all else is for the module's own code."""
        if self.lacks(module):
            return False
        diffloss = self.diffloss_of(module)
        listened = anyone_watches() or any(map(is_touched, parts_of(diffloss.net)))
        own = diffloss.net.cond_embed.weight
        usual = (
            target.dtype in (torch.float32, torch.float64)
            and target.dtype == own.dtype
            and target.device == z.device == own.device
            and target.device.type in ("cpu", "cuda")
            and target.dim() == z.dim() == 2
            and len(target) == len(z) > 0
            and (mask is None or (mask.shape == z.shape[:1] and mask.dtype == target.dtype))
        )
        return usual and not listened and not self.why_not(module)

    def why_not(self, module: Any) -> str:
        """Why the module's own code has to run, found out by a trial in training mode."""

        def find_out() -> str:
            return told(module, self.name, tried(partial(self._try, module)))

        return self.verdicts.of(module, torch.get_default_dtype(), find_out)

    def _try(self, module: Any) -> str:
        trial = trial_of(module)
        for part in parts_of(trial):
            part.__dict__["training"] = True
        net = self.diffloss_of(trial).net
        parameters = [parameter.requires_grad_() for parameter in MARS.parameters(net).flat]
        generator, device = torch.Generator("cpu").manual_seed(0), parameters[0].device

        def draw(width: int) -> Tensor:
            sizes = (*self.trial_shape, width)
            drawn = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
            return drawn.to(device)

        target, z = draw(net.input_proj.weight.shape[1]), draw(net.cond_embed.weight.shape[1])
        z.requires_grad_()
        mask = torch.ones(self.trial_shape, dtype=torch.float32, device=device)
        mask[..., 1] = 0
        scales: list[Tensor] = []

        def of(run: Callable[..., Tensor]) -> Callable[[], Tensor]:
            def call() -> Tensor:
                with torch.enable_grad():
                    loss = run(target=target, z=z, mask=mask)
                    gradients = torch.autograd.grad(loss, [z, *parameters])
                found = [loss.detach().reshape(1), *map(_sampled, gradients)]
                if not scales:
                    largest = [part.abs().max() for part in found]
                    scales.extend(part.clamp(min=1e-6) for part in largest)
                return torch.cat([part / s for part, s in zip(found, scales, strict=True)])

            return call

        fast = type(self)(self.backend, torch.float32)
        return differs(device, of(getattr(trial, self.name)), of(partial(fast.run, trial)))


def _sampled(gradient: Tensor) -> Tensor:
    """Some of its numbers."""
    return gradient.flatten()[:: max(1, gradient.numel() // SAMPLES)]


class FastDiffLoss(_FastLoss):
    """`forward(target [N, C], z [N, D], mask [N])` of a DiffLoss -> scalar."""

    name = "forward"
    trial_shape = (3,)

    @staticmethod
    def diffloss_of(module: Any) -> Any:
        return module

    @classmethod
    def lacks(cls, module: Any) -> str:
        if reason := _no_process(getattr(module, "train_diffusion", None)):
            return reason
        return cls.other_arguments(module) or is_no_ddpm_head(getattr(module, "net", None))

    def __call__(
        self, module: Any, own: Own, target: Tensor, z: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        if self.may_run(module, target, z, mask):
            return self.run(module, target, z, mask)
        result: Tensor = own(target, z, mask)
        return result

    def run(self, module: Any, target: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
        return self.loss(module, target, z, mask, 1)


class FastForwardLoss(_FastLoss):
    """`forward_loss(z [B, L, D], target [B, L, C], mask [B, L])` of a MAR -> scalar: all copies of
    a token by one row of conditions."""

    name = "forward_loss"
    trial_shape = (1, 3)

    @staticmethod
    def diffloss_of(module: Any) -> Any:
        return module.diffloss

    @classmethod
    def lacks(cls, module: Any) -> str:
        diffloss = module.diffloss
        if is_touched(diffloss):
            return "somebody has hooked into its diffloss"
        if not isinstance(getattr(module, "diffusion_batch_mul", None), int):
            return "it has no diffusion_batch_mul"
        if reason := FastDiffLoss.lacks(diffloss):
            return f"its diffloss: {reason}"
        return cls.other_arguments(module)

    def __call__(self, module: Any, own: Own, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        usual = z.dim() == target.dim() == 3 and z.shape[:2] == target.shape[:2] == mask.shape
        flat = (x.flatten(0, 1) for x in (target, z, mask)) if usual else ()
        if usual and self.may_run(module, *flat):
            return self.run(module, target, z, mask)
        result: Tensor = own(z, target, mask)
        return result

    def run(self, module: Any, target: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        copies = module.diffusion_batch_mul
        rows = target.flatten(0, 1), z.flatten(0, 1), mask.flatten(0, 1)
        return self.loss(module.diffloss, *rows, copies)


def _no_process(process: Any) -> str:
    """Why it isn't MAR's process of training; empty if it is."""
    betas, meant = getattr(process, "betas", None), training_process().betas
    if betas is None or np.shape(betas) != meant.shape or not np.allclose(betas, meant, rtol=1e-6):
        return "its train_diffusion isn't MAR's process of 1000 timesteps"
    if names := methods_set_on(process):
        return f"its train_diffusion.{names[0]} was set on the instance"
    return ""
