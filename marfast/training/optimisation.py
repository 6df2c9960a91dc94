"""From gradients to weights: AdamW's groups, the learning rate, averages of the weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from marfast.training.settings import TrainSettings


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether LTH14/mar decays a parameter: no vectors and biases, and nothing of the head."""
    return parameter.ndim > 1 and not name.endswith(".bias") and "diffloss" not in name


def make_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with two groups, without and with decay, in the module's order; its learning rate is
    set in each step."""
    named = [*module.named_parameters()]
    groups = [
        {"params": [p for n, p in named if is_decayed(n, p) is decayed], "weight_decay": decay}
        for decayed, decay in ((False, 0.0), (True, settings.weight_decay))
    ]
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)


def learning_rate(settings: TrainSettings, epoch: float) -> float:
    """At a fractional epoch: linear from 0 over the warm-up, then constant or a cosine."""
    if epoch < settings.warmup:
        return settings.lr * epoch / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    share = (epoch - settings.warmup) / max(settings.epochs - settings.warmup, 1e-9)
    wave = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return settings.min_lr + (settings.lr - settings.min_lr) * wave


class Average:
    """An exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module, rate: float, warmup: bool):
        self.rate, self.warmup = rate, warmup
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, updates: int) -> None:
        """After so many updates before this one."""
        rate = self.rate
        if self.warmup:
            rate = min(rate, (1 + updates) / (10 + updates))
        for name, parameter in module.named_parameters():
            self.weights[name].mul_(rate).add_(parameter.detach(), alpha=1 - rate)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, own in self.weights.items():
            own.copy_(weights[name])


MOMENTS = ("exp_avg", "exp_avg_sq")


def optimizer_tensors(optimizer: torch.optim.AdamW, module: nn.Module) -> dict[str, Tensor]:
    """AdamW's state by the parameters' names, which have all had the same steps; nothing before
    the first one."""
    found: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if state := optimizer.state.get(parameter):
            found |= {f"{kind}.{name}": state[kind] for kind in MOMENTS} | {"step": state["step"]}
    return found


@torch.no_grad()
def load_optimizer(
    optimizer: torch.optim.AdamW, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Of what `optimizer_tensors` gave. KeyError where a name is missing."""
    if "step" not in tensors:
        return
    for name, parameter in module.named_parameters():
        of = {kind: tensors[f"{kind}.{name}"].to(parameter.device) for kind in MOMENTS}
        step = tensors["step"].to(parameter.device, copy=True)
        optimizer.state[parameter] = {"step": step, **of}
