"""Heads, the paper's and others, with inputs for their sampling loop, and whoever runs it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marfast import ops
from marfast.bench.named_heads import NAMED
from marfast.checkpoints import get_preset
from marfast.ops import choice
from marfast.ops.head import HeadShape
from marfast.ops.op import OPS
from marfast.reference import Head, HeadSpec, SimpleMLPAdaLN, create_diffusion
from marfast.reference import denoise as reference
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head_spec import MAR_HEAD
from marfast.reference.head_weights import HeadWeights
from marfast.reference.samplers import ddpm

Net = TypeVar("Net", bound=nn.Module)
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class HeadWorkload:
    """A head and what its sampling loop takes; R rows, guided: R / 2 tokens."""

    net: SimpleMLPAdaLN | Head
    shape: HeadShape
    spec: HeadSpec
    noise: Tensor
    step_noise: Tensor
    cond: Tensor
    weights: list[Tensor]
    schedule: Tensor
    timesteps: Tensor
    guidance: Tensor
    options: HeadOptions

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor, Tensor]:
        """Of the reference's `ddpm_sample`, before its options."""
        return (
            self.noise,
            self.step_noise,
            self.cond,
            self.weights,
            self.schedule,
            self.timesteps,
            self.guidance,
        )

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of `ops.ddpm_sample`, before `packed`."""
        return (*self.inputs, self.options.temperature, self.options.clip_denoised)

    @property
    def choices(self) -> tuple[Any, ...]:
        """Those after it."""
        return self.options.learned_range, str(self.spec)

    @property
    def weights_a_step(self) -> int:
        """The sequential part: the products of every block."""
        shape = self.shape
        return (2 + self.spec.gated) * shape.depth * shape.width * shape.hidden

    def in_dtype(self, dtype: torch.dtype) -> "HeadWorkload":
        """With the weights in this dtype."""
        return replace(self, weights=[weight.to(dtype) for weight in self.weights])

    def flops_a_step(self, rows: int) -> int:
        groups = -(-self.shape.depth // self.spec.share)
        modulation = (3 * groups + 2) * self.shape.width**2
        return 2 * rows * (modulation + self.weights_a_step)


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
    return drawn(SimpleMLPAdaLN(channels, width, 2 * channels, condition, depth))


def make_named_head(name: str, device: str = "cpu") -> Head:
    """A head of `named_heads.NAMED` with random weights."""
    spec, shape, *_ = NAMED[name]
    torch.manual_seed(0)
    sizes = shape._asdict()
    return drawn(Head(spec, **sizes)).to(device)


def drawn(net: Net) -> Net:
    """A module whose weights that start as 0 are drawn anew."""
    for name, parameter in net.named_parameters():
        if "adaLN" in name or name.startswith("final_layer.linear"):
            torch.nn.init.normal_(parameter, std=0.02)
    return net.eval().requires_grad_(False)


def head_workload(
    net: SimpleMLPAdaLN | Head, rows: int, steps: int, name: str = ""
) -> HeadWorkload:
    """R rows under guidance 2.9; one row is unguided. A named head is sampled as its own code
    does, another one by DDPM."""
    generator = torch.Generator().manual_seed(rows)
    spec = net.spec if isinstance(net, Head) else MAR_HEAD
    weights: list[Tensor] = [*net.parameters()]
    shape, device = HeadShape.of(weights, spec), weights[0].device
    guided = rows > 1
    tokens = rows // 2 if guided else 1

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    table = NAMED[name].table(steps) if name else ddpm(create_diffusion(str(steps)))
    noise = draw(*(2,) * table.multistep, tokens, shape.channels)
    return HeadWorkload(
        net,
        shape,
        spec,
        noise=noise,
        step_noise=draw(steps, tokens, shape.channels),
        cond=draw(2 * tokens if guided else 1, shape.condition),
        weights=weights,
        schedule=table.coefficients.to(device),
        timesteps=table.timesteps.to(device),
        guidance=torch.tensor([2.9], device=device),
        options=HeadOptions(1 + guided, 1.0, not name, table.learned_range),
    )


def eager(workload: HeadWorkload) -> Run:
    """The reference, which is the original's loop."""
    arguments = [*workload.arguments, None, *workload.choices]

    def run() -> Tensor:
        with ops.backend("reference"):
            return ops.ddpm_sample(*arguments)

    return run


def warm_autocast(workload: HeadWorkload) -> Run:
    """The same under bfloat16 autocast, for a block of `cast_weights_kept`."""
    leaves = [weight.detach().requires_grad_() for weight in workload.weights]
    work = replace(workload, weights=leaves)

    def run() -> Tensor:
        with torch.autocast(leaves[0].device.type, torch.bfloat16):
            return reference.ddpm_sample(*work.inputs, work.options, work.spec)

    return run


def compiled(work: HeadWorkload) -> Run:
    """The head compiled by torch.compile (with CUDA graphs on a GPU), in the reference's loop;
    compiled by an earlier run."""
    mode = "reduce-overhead" if work.noise.is_cuda else None
    torch.compiler.reset()  # after eight shapes of one function torch would run the rest eagerly
    denoise = torch.compile(reference.head_output, fullgraph=True, dynamic=False, mode=mode)
    weights = HeadWeights.of(work.weights, work.spec)

    def run() -> Tensor:
        x = work.noise
        steps = zip(work.schedule, work.timesteps, work.step_noise, strict=True)
        for coefficients, t, noise in steps:
            now = x[0] if x.dim() == 3 else x
            rows: Tensor = now.repeat(work.options.branches, 1)
            told = t.expand(rows.shape[0], *t.shape)
            output = denoise(rows, told, work.cond, weights, work.spec)
            x = ddpm_step(x, output, noise, coefficients, work.guidance, work.options)
        return x

    return run


def original(workload: HeadWorkload, implementation: Any) -> Run:
    """The original's own `DiffLoss.sample`, same condition and weights; it draws its noise."""
    net, cond, shape = workload.net, workload.cond, workload.shape
    diffloss = implementation.diffloss(
        target_channels=shape.channels,
        z_channels=shape.condition,
        depth=shape.depth,
        width=shape.width,
        num_sampling_steps=str(len(workload.timesteps)),
        clip_denoised=True,
    )
    diffloss.net.load_state_dict(net.state_dict())
    diffloss = diffloss.eval().requires_grad_(False).to(cond.device)

    def run() -> Tensor:
        sampled: Tensor = diffloss.sample(cond, 1.0, 2.9 if len(cond) > 1 else 1.0)
        return sampled

    return run


def ours(workload: HeadWorkload, backend: Any, dtype: torch.dtype) -> Run:
    """`ops.ddpm_sample` by one backend, its weights packed beforehand where it packs."""
    work = workload.in_dtype(dtype)
    packed = ops.pack_head(work.weights, spec=str(work.spec)) if backend == "cpu" else None
    arguments = [*work.arguments, packed, *work.choices]

    def run() -> Tensor:
        with ops.backend(backend):
            return ops.ddpm_sample(*arguments)

    return run


def backends(workload: HeadWorkload, dtype: torch.dtype) -> list[str]:
    """Ours that can run it here."""
    op = OPS["ddpm_sample"]
    arguments = workload.in_dtype(dtype).arguments
    verdicts = choice.verdicts(op, op.bind(*arguments, None, *workload.choices))
    able = ("", "on request only")
    return [name for name, reason in verdicts.items() if name != "reference" and reason in able]
