"""KL-16, MAR's tokenizer: the KL-regularised autoencoder of latent diffusion (arXiv 2112.10752,
section 3.1 and appendix G), whose latents are the tokens of MAR (section 4).

Constructor arguments, method names, parameter names and random draws are those of LTH14/mar.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
ATTENTION_LEVEL = 4
"""The encoder's level with attention: 16 × 16 positions of a 256 × 256 image."""


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int = GROUPS,
    eps: float = 1e-6,
    silu: bool = True,
) -> Tensor:
    """SiLU(GroupNorm(x)), or GroupNorm(x) alone: x [B, C, H, W]; weight, bias [C]."""
    h = F.group_norm(x, groups, weight, bias, eps)
    return h * torch.sigmoid(h) if silu else h


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head of softmax(QKᵀ/√C)V over all positions: q, k, v [B, C, H, W] -> [B, C, H, W]."""
    queries, keys, values = (x.flatten(2) for x in (q, k, v))  # [B, C, HW]
    scores = torch.bmm(queries.transpose(1, 2), keys) * q.shape[1] ** -0.5
    probabilities = torch.softmax(scores, dim=2)
    return torch.bmm(values, probabilities.transpose(1, 2)).view_as(v)


def upsample(x: Tensor) -> Tensor:
    """Each pixel becomes 2 × 2: [B, C, H, W] -> [B, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def pad_for_stride_2(x: Tensor) -> Tensor:
    """A row below and a column on the right, of zeros: the padding of a downsampling convolution
    is not symmetric."""
    return F.pad(x, (0, 1, 0, 1))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def _normalised(norm: nn.GroupNorm, x: Tensor, silu: bool = True) -> Tensor:
    return group_norm_silu(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)


class ResnetBlock(nn.Module):
    """x + two convolutions, each after GroupNorm and SiLU: [B, inputs, H, W] -> [B, outputs, H, W].

    Where the widths differ, x passes through a 1 × 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = _conv3(inputs, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = _conv3(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(_normalised(self.norm1, x))
        h = self.conv2(_normalised(self.norm2, h))
        shortcut = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        out: Tensor = shortcut + h
        return out


class AttnBlock(nn.Module):
    """x + attention over all positions of GroupNorm(x): [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (
            nn.Conv2d(channels, channels, kernel_size=1) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = _normalised(self.norm, x, silu=False)
        out: Tensor = x + self.proj_out(attention(self.q(h), self.k(h), self.v(h)))
        return out


class Downsample(nn.Module):
    """[B, C, 2H, 2W] -> [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(pad_for_stride_2(x))
        return out


class Upsample(nn.Module):
    """[B, C, H, W] -> [B, C, 2H, 2W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = _conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(upsample(x))
        return out


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where there is any, and the way to
    the next resolution, `downsample` or `upsample`."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, attends: bool, change: str | None = None
    ):
        super().__init__()
        self.block = nn.ModuleList()
        self.attn = nn.ModuleList()
        for i in range(blocks):
            self.block.append(ResnetBlock(outputs if i else inputs, outputs))
            if attends:
                self.attn.append(AttnBlock(outputs))
        if change == "downsample":
            self.downsample = Downsample(outputs)
        elif change == "upsample":
            self.upsample = Upsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for change in ("downsample", "upsample"):
            if hasattr(self, change):
                x = getattr(self, change)(x)
        return x


class Middle(nn.Module):
    """The blocks between the levels of the least resolution: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Images [B, 3, H, W] -> [B, 2·z_channels, H/s, W/s], s = 2^(levels − 1)."""

    def __init__(self, ch: int, ch_mult: Sequence[int], z_channels: int, num_res_blocks: int = 2):
        super().__init__()
        self.conv_in = _conv3(3, ch)
        widths = [ch, *(ch * mult for mult in ch_mult)]
        last = len(ch_mult) - 1
        self.down = nn.ModuleList(
            Level(
                widths[i],
                widths[i + 1],
                num_res_blocks,
                i == ATTENTION_LEVEL,
                change=None if i == last else "downsample",
            )
            for i in range(len(ch_mult))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv3(widths[-1], 2 * z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(_normalised(self.norm_out, self.mid(x)))
        return out


class Decoder(nn.Module):
    """[B, z_channels, h, w] -> images [B, 3, s·h, s·w], s = 2^(levels − 1). `up` runs from its last
    level to its first; none of them has attention."""

    def __init__(self, ch: int, ch_mult: Sequence[int], z_channels: int, num_res_blocks: int = 2):
        super().__init__()
        widths = [*(ch * mult for mult in ch_mult), ch * ch_mult[-1]]
        self.conv_in = _conv3(z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for i in reversed(range(len(ch_mult))):
            change = "upsample" if i else None
            level = Level(
                widths[i + 1], widths[i], num_res_blocks + 1, attends=False, change=change
            )
            self.up.insert(0, level)
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv3(widths[0], 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(_normalised(self.norm_out, x))
        return out


class DiagonalGaussianDistribution:
    """A normal distribution over latents. `parameters` [B, 2C, h, w]: means, then log variances,
    which are limited to [−30, 20]."""

    def __init__(self, parameters: Tensor):
        self.parameters = parameters
        self.mean, logvar = parameters.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.std = torch.exp(0.5 * self.logvar)
        self.var = torch.exp(self.logvar)

    def sample(self) -> Tensor:
        """Latents [B, C, h, w]."""
        # drawn by the CPU's generator on every device, as the original does
        return self.mean + self.std * torch.randn(self.mean.shape).to(self.mean.device)

    def mode(self) -> Tensor:
        """The most probable latents [B, C, h, w]: the means."""
        return self.mean


class AutoencoderKL(nn.Module):
    """The tokenizer. The defaults are KL-16's: stride 16, 16 channels.

    `embed_dim` is the latents' channels; a level of the encoder and of the decoder has a width of
    `ch` times its entry of `ch_mult` (a multiple of 32). Without `use_variational` all log
    variances are 1, as the original has it. Latents here are not scaled: MAR's tokens are them
    times 0.2325.
    """

    def __init__(
        self,
        embed_dim: int = 16,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        use_variational: bool = True,
        ch: int = 128,
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.use_variational = use_variational
        self.stride = 2 ** (len(ch_mult) - 1)
        self.encoder = Encoder(ch, ch_mult, embed_dim)
        self.decoder = Decoder(ch, ch_mult, embed_dim)
        moments = (2 if use_variational else 1) * embed_dim
        self.quant_conv = nn.Conv2d(2 * embed_dim, moments, kernel_size=1)
        self.post_quant_conv = nn.Conv2d(embed_dim, embed_dim, kernel_size=1)

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        """Images [B, 3, H, W] in [−1, 1] -> the distribution of their latents [B, C, H/s, W/s]."""
        moments = self.quant_conv(self.encoder(x))
        if not self.use_variational:
            moments = torch.cat([moments, torch.ones_like(moments)], dim=1)
        return DiagonalGaussianDistribution(moments)

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> images [B, 3, s·h, s·w], in [−1, 1] but for overshoot."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out
