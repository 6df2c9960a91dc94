"""What people change in a MAR: each makes its images others than the class's own code would."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from marfast.reference import MAR, create_diffusion
from marfast.reference.head import DiffLoss, SimpleMLPAdaLN
from marfast.reference.transformer import Block

Change = Callable[[MAR], object]


class Deterministic(DiffLoss):
    """A DDIM sampler behind MAR's signature."""

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: Any = 1.0) -> Tensor:
        process, guided = self.gen_diffusion, bool(cfg != 1.0)
        kept = np.cumprod(1 - np.asarray(process.betas))
        tokens = len(z) // 2 if guided else len(z)
        x = torch.randn(tokens, self.in_channels)
        for i in reversed(range(len(kept))):
            t = torch.full((len(z),), int(process.timestep_map[i]))
            eps = self.net.forward(x.repeat(2, 1) if guided else x, t, z)[:, : self.in_channels]
            if guided:
                c, u = eps.chunk(2)
                eps = u + cfg * (c - u)
            x0 = ((x - (1 - kept[i]) ** 0.5 * eps) / kept[i] ** 0.5).clamp(-1, 1)
            before = kept[i - 1] if i else 1.0
            x = (before**0.5 * x0 + (1 - before) ** 0.5 * eps).float()
        return x.repeat(2, 1) if guided else x


class OtherProcess(type(create_diffusion("4"))):  # type: ignore[misc]
    """The head's output is x0, not noise."""

    def _p_mean_log_variance(self, output: Tensor, x: Tensor, t: Tensor, clip: bool) -> Any:
        _, log_variance = super()._p_mean_log_variance(output, x, t, clip)
        return self._posterior_mean(output.chunk(2, dim=1)[0], x, t), log_variance


class Raster(MAR):
    def sample_orders(self, bsz: int) -> Tensor:
        return torch.arange(self.seq_len).repeat(bsz, 1)


class MoreGuidance(MAR):
    def sample_tokens(  # type: ignore[override]
        self, bsz, num_iter=64, cfg=1.0, cfg_schedule="linear", labels=None, temperature=1.0,
        progress=False,
    ):  # fmt: skip
        cfg, cfg_schedule = (cfg * 1.1, "constant") if cfg_schedule == "more" else (cfg, "linear")
        return super().sample_tokens(bsz, num_iter, cfg * 1.1, cfg_schedule, labels, temperature)


class DrawsMore(MAR):
    def sample_tokens(  # type: ignore[override]
        self, bsz, num_iter=64, cfg=1.0, cfg_schedule="linear", labels=None, temperature=1.0,
        progress=False,
    ):  # fmt: skip
        images = super().sample_tokens(bsz, num_iter, cfg, cfg_schedule, labels, temperature)
        torch.rand(1)
        return images


class Parallel(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))


class OtherGuidance(SimpleMLPAdaLN):
    def forward_with_cfg(self, x: Tensor, t: Tensor, c: Tensor, cfg_scale: Any) -> Tensor:
        return super().forward_with_cfg(x, t, c, 1 + cfg_scale)


def reclass(path: str, kind: type) -> Change:
    def change(module: MAR) -> None:
        module.get_submodule(path).__class__ = kind

    return change


def other_process(module: MAR) -> None:
    module.diffloss.gen_diffusion.__class__ = OtherProcess


def patched_process(module: MAR) -> None:
    process = module.diffloss.gen_diffusion
    loop = process.p_sample_loop
    process.p_sample_loop = lambda *args, **kwargs: loop(*args, **kwargs) * 0.5  # type: ignore


def raster_on_the_instance(module: MAR) -> None:
    module.sample_orders = lambda bsz: torch.arange(module.seq_len).repeat(bsz, 1)  # type: ignore


def decoder_on_the_instance(module: MAR) -> None:
    own = module.forward_mae_decoder
    module.forward_mae_decoder = lambda x, mask: own(x, mask) * 1.5  # type: ignore


def attention_on_the_instance(module: MAR) -> None:
    for block in module.decoder_blocks:
        block.attn.forward = functools.partial(lambda old, x: old(x) * 2, block.attn.forward)


def head_on_the_instance(module: MAR) -> None:
    own = module.diffloss.net.forward
    module.diffloss.net.forward = lambda x, t, c: own(x, t, c) * 0.9  # type: ignore


def loop_on_the_instance(module: MAR) -> None:
    own = module.sample_tokens
    module.sample_tokens = lambda *args, **kwargs: own(*args, **kwargs) * 0.5  # type: ignore


def compiled_head(module: MAR) -> None:
    module.diffloss.net = torch.compile(module.diffloss.net, backend="eager")


def compiled_in_place(module: MAR) -> None:
    for block in module.encoder_blocks:
        block.compile(backend="eager")


def pruned(module: MAR) -> None:
    prune.l1_unstructured(module.diffloss.net.cond_embed, "weight", 0.3)


def normalised(module: MAR) -> None:
    parametrizations.weight_norm(module.diffloss.net.cond_embed)
    parametrizations.weight_norm(module.decoder_blocks[0].attn.qkv)


class Lora(nn.Module):
    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.more = nn.Linear(base.in_features, base.out_features)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.1 * self.more(x)


def adapted(module: MAR) -> None:
    torch.manual_seed(0)
    module.decoder_blocks[0].attn.qkv = Lora(module.decoder_blocks[0].attn.qkv)  # type: ignore
    module.diffloss.net.cond_embed = Lora(module.diffloss.net.cond_embed)  # type: ignore


def quantized(module: MAR) -> None:
    torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, inplace=True)


class Flow(nn.Module):
    def __init__(self, diffloss: DiffLoss):
        super().__init__()
        self.in_channels, self.net = diffloss.in_channels, diffloss.net
        width = self.net.final_layer.linear.in_features
        self.net.final_layer.linear = nn.Linear(width, self.in_channels)

    def sample(self, z: Tensor, temperature: float = 1.0, cfg: Any = 1.0) -> Tensor:
        x = torch.randn(len(z) // 2, self.in_channels).repeat(2, 1)
        for i in range(4):
            c, u = self.net(x, torch.full((len(x),), 250.0 * i), z).chunk(2)
            x = x + (u + cfg * (c - u)).repeat(2, 1) / 4
        return x


def flow(module: MAR) -> None:
    torch.manual_seed(0)
    module.diffloss = Flow(module.diffloss)  # type: ignore


class Mixed(nn.Module):
    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.embedding = embedding

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding(labels) + self.embedding(labels.flip(0))


def other_classes(module: MAR) -> None:
    module.class_emb = Mixed(module.class_emb)  # type: ignore


CHANGES: dict[str, Change] = {
    "other sampler": reclass("diffloss", Deterministic),
    "other guidance": reclass("diffloss.net", OtherGuidance),
    "other parametrisation": other_process,
    "raster order": reclass("", Raster),
    "other loop": reclass("", MoreGuidance),
    "more draws": reclass("", DrawsMore),
    "other block": reclass("decoder_blocks.1", Parallel),
    **{
        change.__name__: change
        for change in (
            patched_process,
            raster_on_the_instance,
            decoder_on_the_instance,
            attention_on_the_instance,
            head_on_the_instance,
            loop_on_the_instance,
            compiled_head,
            compiled_in_place,
            pruned,
            normalised,
            adapted,
            quantized,
            flow,
            other_classes,
        )
    },
}
