"""What is timed, under the names that users think in: the paper's heads with their inputs."""

from typing import Any, NamedTuple

import torch

from marfast.model import get_preset
from marfast.reference import SimpleMLPAdaLN, create_diffusion


class HeadWorkload(NamedTuple):
    """A head and what its sampling loop takes; R rows, guided: R / 2 tokens."""

    net: SimpleMLPAdaLN
    arguments: tuple[Any, ...]  # of ops.ddpm_sample, without `packed`

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


def make_head(preset: str) -> SimpleMLPAdaLN:
    """The head of mar_base, mar_large or mar_huge; weights that start as 0 are drawn anew."""
    what = get_preset(preset).architecture
    torch.manual_seed(0)
    channels = what.vae_embed_dim * what.patch_size**2
    net = SimpleMLPAdaLN(
        channels, what.diffloss_w, 2 * channels, what.decoder_embed_dim, what.diffloss_d
    )
    for name, parameter in net.named_parameters():
        if "adaLN" in name or name.startswith("final_layer.linear"):
            torch.nn.init.normal_(parameter, std=0.02)
    return net.eval().requires_grad_(False)


def head_workload(net: SimpleMLPAdaLN, rows: int, steps: int) -> HeadWorkload:
    """R rows under guidance 2.9, x_0 clipped, so that random weights keep the sample in bounds."""
    generator = torch.Generator().manual_seed(rows)
    tokens = rows // 2

    def draw(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator)

    arguments = (
        draw(tokens, net.in_channels),
        draw(steps, tokens, net.in_channels),
        draw(rows, net.cond_embed.in_features),
        [*net.parameters()],
        *create_diffusion(str(steps)).sampling_schedule(),
        torch.tensor([2.9]),
        1.0,
        True,
    )
    return HeadWorkload(net, arguments)
