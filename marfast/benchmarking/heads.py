"""The paper's heads with inputs for their sampling loop, and whoever runs it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marfast import ops
from marfast.model import get_preset
from marfast.ops import choice
from marfast.ops.op import OPS
from marfast.reference import SimpleMLPAdaLN, create_diffusion, head
from marfast.reference.diffusion import HeadOptions, ddpm_step

Run = Callable[[], Tensor]


class HeadWorkload(NamedTuple):
    """A head and what its sampling loop takes; R rows, guided: R / 2 tokens."""

    net: SimpleMLPAdaLN
    arguments: tuple[Any, ...]  # of ops.ddpm_sample, without `packed`

    @property
    def options(self) -> HeadOptions:
        noise, _, cond, *_, temperature, clip_denoised = self.arguments
        return HeadOptions(len(cond) != len(noise), temperature, clip_denoised)

    @property
    def weights_a_step(self) -> int:
        """The sequential part: both products of every block."""
        return 2 * self.net.num_res_blocks * self.net.model_channels**2

    def in_dtype(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The arguments with the weights in this dtype."""
        weights = [weight.to(dtype) for weight in self.arguments[3]]
        return (*self.arguments[:3], weights, *self.arguments[4:])

    def flops_a_step(self, rows: int) -> int:
        depth, width = self.net.num_res_blocks, self.net.model_channels
        return 2 * rows * (5 * depth + 2) * width**2


def make_head(preset: str, device: str = "cpu") -> SimpleMLPAdaLN:
    """The head of mar_base, mar_large or mar_huge; weights that start as 0 are drawn anew."""
    what = get_preset(preset).architecture
    return draw_head(
        what.vae_embed_dim * what.patch_size**2,
        what.diffloss_w,
        what.diffloss_d,
        what.decoder_embed_dim,
    ).to(device)


def draw_head(channels: int, width: int, depth: int, condition: int) -> SimpleMLPAdaLN:
    """A head with random weights."""
    torch.manual_seed(0)
    net = SimpleMLPAdaLN(channels, width, 2 * channels, condition, depth)
    for name, parameter in net.named_parameters():
        if "adaLN" in name or name.startswith("final_layer.linear"):
            torch.nn.init.normal_(parameter, std=0.02)
    return net.eval().requires_grad_(False)


def head_workload(net: SimpleMLPAdaLN, rows: int, steps: int) -> HeadWorkload:
    """R rows under guidance 2.9, x_0 clipped, so that random weights keep the sample in bounds."""
    generator = torch.Generator().manual_seed(rows)
    device = net.cond_embed.weight.device
    guided = rows > 1
    tokens = rows // 2 if guided else 1

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    schedule, timesteps = create_diffusion(str(steps)).sampling_schedule()
    arguments = (
        draw(tokens, net.in_channels),
        draw(steps, tokens, net.in_channels),
        draw(2 * tokens if guided else 1, net.cond_embed.in_features),
        [*net.parameters()],
        *(schedule.to(device), timesteps.to(device)),
        torch.tensor([2.9], device=device),
        1.0,
        True,
    )
    return HeadWorkload(net, arguments)


def eager(workload: HeadWorkload) -> Run:
    """The reference, which is the original's loop."""

    def run() -> Tensor:
        with ops.backend("reference"):
            return ops.ddpm_sample(*workload.arguments)

    return run


def warm_autocast(workload: HeadWorkload) -> Run:
    """The same under bfloat16 autocast, its cache of cast weights filled by an earlier run."""
    torch.autocast_increment_nesting()  # so that leaving the context doesn't empty the cache
    leaves = [weight.detach().requires_grad_() for weight in workload.arguments[3]]
    noise, step_noise, cond, _, schedule, timesteps, guidance, *_ = workload.arguments
    inputs = (noise, step_noise, cond, leaves, schedule, timesteps, guidance)
    options = workload.options

    def run() -> Tensor:
        with torch.autocast(leaves[0].device.type, torch.bfloat16):
            sampled: Tensor = head.ddpm_sample(*inputs, options=options)
            return sampled

    return run


def compiled(workload: HeadWorkload) -> Run:
    """The head compiled by torch.compile (with CUDA graphs on a GPU), in the reference's loop;
    compiled by an earlier run."""
    noise, step_noise, cond, weights, schedule, timesteps, guidance, *_ = workload.arguments
    mode = "reduce-overhead" if noise.is_cuda else None
    torch.compiler.reset()  # after eight shapes of one function torch would run the rest eagerly
    denoise = torch.compile(head.denoise, fullgraph=True, dynamic=False, mode=mode)

    def run() -> Tensor:
        x: Tensor = noise
        for coefficients, t, noise_t in zip(schedule, timesteps, step_noise, strict=True):
            rows: Tensor = x.repeat(cond.shape[0] // x.shape[0], 1)
            output = denoise(rows, t.expand(rows.shape[0]), cond, weights)
            x = ddpm_step(x, output, noise_t, coefficients, guidance, workload.options)
        return x

    return run


def original(workload: HeadWorkload, implementation: Any) -> Run:
    """The original's own `DiffLoss.sample`, same condition and weights; it draws its noise."""
    net, cond, steps = workload.net, workload.arguments[2], len(workload.arguments[5])
    diffloss = implementation.diffloss(
        *(net.in_channels, net.cond_embed.in_features, net.num_res_blocks, net.model_channels),
        num_sampling_steps=str(steps),
        clip_denoised=True,
    )
    diffloss.net.load_state_dict(net.state_dict())
    diffloss = diffloss.eval().requires_grad_(False).to(cond.device)

    def run() -> Tensor:
        sampled: Tensor = diffloss.sample(cond, 1.0, 2.9 if len(cond) > 1 else 1.0)
        return sampled

    return run


def ours(workload: HeadWorkload, backend: str, dtype: torch.dtype) -> Run:
    """`ops.ddpm_sample` by one backend, its weights packed beforehand where it packs."""
    arguments = workload.in_dtype(dtype)
    packed = ops.pack_head(arguments[3]) if backend == "cpu" else None
    arguments = (*arguments, packed)

    def run() -> Tensor:
        with ops.backend(backend):
            return ops.ddpm_sample(*arguments)

    return run


def backends(workload: HeadWorkload, dtype: torch.dtype) -> list[str]:
    """Ours that can run it here."""
    op = OPS["ddpm_sample"]
    verdicts = choice.verdicts(op, op.bind(*workload.in_dtype(dtype)))
    able = ("", "on request only")
    return [name for name, reason in verdicts.items() if name != "reference" and reason in able]
