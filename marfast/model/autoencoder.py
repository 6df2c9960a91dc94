"""KL-16 through the ops: an autoencoder's own parameters, channels_last, in chunks of the batch."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marfast import ops
from marfast.checkpoints.meta import without_storage
from marfast.checkpoints.read import read_weights
from marfast.reference.vae import GROUPS, AutoencoderKL, pad_for_stride_2

SCALE = 0.2325
"""Of KL-16's latents, to a standard deviation of about 1 (MAR section 5, its `mul_(0.2325)`)."""

PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv")

Step = Callable[[Tensor], Tensor]

CHUNK_MEMORY = 1 << 27  # bytes of activations that one chunk of a batch may take, about
ACTIVATIONS = 3  # of the largest size are alive at a time: a block's input, and two steps in it


def _normalised(norm: Any, x: Tensor, silu: bool = True) -> Tensor:
    return ops.group_norm_silu(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)


def _resnet(block: Any, x: Tensor) -> Tensor:
    # One name for what follows: each tensor is freed as soon as the next one is there.
    h: Tensor = _normalised(block.norm1, x)
    h = block.conv1(h)
    h = _normalised(block.norm2, h)
    h = block.conv2(h)
    shortcut = getattr(block, "nin_shortcut", None)
    h += x if shortcut is None else shortcut(x)
    return h


def _attend(block: Any, x: Tensor) -> Tensor:
    h: Tensor = _normalised(block.norm, x, silu=False)
    batch, channels, height, width = x.shape
    # one head: [B, 1, H·W, C] each
    q, k, v = (
        conv(h).permute(0, 2, 3, 1).flatten(1, 2)[:, None] for conv in (block.q, block.k, block.v)
    )
    h = F.scaled_dot_product_attention(q, k, v)
    h = h.view(batch, height, width, channels).permute(0, 3, 1, 2)
    h = block.proj_out(h)
    h += x
    return h


def _upsample(conv: Any, x: Tensor) -> Tensor:
    """`conv(upsample(x))` with 4 of its 9 products: of three taps on doubled pixels two meet the
    same one, and are added beforehand. Which two, an output's parity says."""
    even, odd = [[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]
    taps = torch.tensor([even, odd], dtype=x.dtype, device=x.device)  # [parity, 2, 3]
    weight = torch.einsum("atr,bus,oirs->aboitu", taps, taps, conv.weight).flatten(0, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)  # [4 O, I, 2, 2]
    parities = F.conv2d(x, weight, conv.bias.repeat(4), padding=1)  # [B, 4 O, H + 1, W + 1]
    batch, _, height, width = x.shape
    out = x.new_empty(batch, 2 * height, 2 * width, len(conv.bias)).permute(0, 3, 1, 2)
    for i, of_parity in enumerate(parities.chunk(4, dim=1)):
        row, column = divmod(i, 2)
        out[:, :, row::2, column::2] = of_parity[:, :, row : row + height, column : column + width]
    return out


def _blocks(level: Any) -> Iterator[Step]:
    for i, block in enumerate(level.block):
        yield partial(_resnet, block)
        if len(level.attn):
            yield partial(_attend, level.attn[i])


def _middle(mid: Any) -> Iterator[Step]:
    yield partial(_resnet, mid.block_1)
    yield partial(_attend, mid.attn_1)
    yield partial(_resnet, mid.block_2)


def _encoder(module: Any) -> Iterator[Step]:
    """From images to the means and log variances of their latents."""
    encoder = module.encoder
    yield encoder.conv_in
    for level in encoder.down:
        yield from _blocks(level)
        if hasattr(level, "downsample"):
            yield pad_for_stride_2
            yield level.downsample.conv
    yield from _middle(encoder.mid)
    yield partial(_normalised, encoder.norm_out)
    yield encoder.conv_out
    yield module.quant_conv


def _decoder(module: Any) -> Iterator[Step]:
    """From latents to images."""
    decoder = module.decoder
    yield module.post_quant_conv
    yield decoder.conv_in
    yield from _middle(decoder.mid)
    for level in reversed(decoder.up):
        yield from _blocks(level)
        if hasattr(level, "upsample"):
            yield partial(_upsample, level.upsample.conv)
    yield partial(_normalised, decoder.norm_out)
    yield decoder.conv_out


class KLTokenizer:
    """A tokenizer (`Tokenizer`) of an `AutoencoderKL`: the reference's, or LTH14/mar's own.

    Args:
        module: holds the parameters; it is neither copied nor changed. Weights that are
            channels_last in memory save a conversion in each call.
        scale: latents are the module's times this.

    Raises:
        TypeError: the module's parameters are not an AutoencoderKL's.
    """

    def __init__(self, module: Any, scale: float = SCALE):
        refused = f"module: {type(module).__name__} is no AutoencoderKL"
        shapes = {name: value.shape for name, value in module.state_dict().items()}
        for name, value in _build(shapes).state_dict().items():
            if shapes.pop(name, None) != value.shape:
                raise TypeError(f"{refused}: {name} is missing or of another shape")
        if shapes:
            raise TypeError(f"{refused}: it has {min(shapes)}")
        self.module = module
        self.scale = scale
        self.channels: int = module.post_quant_conv.out_channels
        self.stride = 2 ** (len(module.decoder.up) - 1)

    def to(self, device: torch.device | str) -> "KLTokenizer":
        self.module.to(device)
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [−1, 1] -> the means of their latents [B, C, H/s, W/s], scaled;
        float32, on the images' device.

        Raises ValueError for a shape that has no latents.
        """
        return self._encoded(images, self.channels).mul_(self.scale)

    def moments(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [−1, 1] -> the means and log variances of their latents, [B, 2C,
        H/s, W/s], neither scaled nor limited; float32. Errors as of `encode`."""
        return self._encoded(images, 2 * self.channels)

    def _encoded(self, images: Tensor, channels: int) -> Tensor:
        height, width = self._sizes("images", images, 3)
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"images has sides {height} and {width}; multiples of {self.stride} are allowed"
            )
        shape = (channels, height // self.stride, width // self.stride)
        return self._in_chunks(_encoder, images, shape, height * width)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w], scaled -> images [B, 3, s·h, s·w], in [−1, 1] but for overshoot;
        float32, on the latents' device.

        Raises ValueError for a wrong shape.
        """
        height, width = (
            self.stride * side for side in self._sizes("latents", latents, self.channels)
        )
        scaled = latents / self.scale
        return self._in_chunks(_decoder, scaled, (3, height, width), height * width)

    def _sizes(self, name: str, given: Tensor, channels: int) -> tuple[int, int]:
        if given.dim() != 4 or given.shape[1] != channels:
            raise ValueError(
                f"{name} has shape {list(given.shape)}; it must be [B, {channels}, H, W]"
            )
        return given.shape[2], given.shape[3]

    @torch.no_grad()
    def _in_chunks(
        self,
        steps: Callable[[Any], Iterator[Step]],
        x: Tensor,
        shape: tuple[int, int, int],
        pixels: int,
    ) -> Tensor:
        """The module's steps on some images at a time, as many as CHUNK_MEMORY allows, in the dtype
        of its weights; the first channels of what comes out, [B, *shape]."""
        weight = self.module.encoder.conv_in.weight
        image = ACTIVATIONS * weight.shape[0] * pixels * weight.element_size()
        chunk = max(1, CHUNK_MEMORY // max(1, image))
        out = torch.empty(x.shape[0], *shape, device=x.device)
        with torch.autocast(weight.device.type, enabled=False):
            for part, result in zip(x.split(chunk), out.split(chunk), strict=True):
                h = part.to(weight.device, weight.dtype, memory_format=torch.channels_last)
                for step in steps(self.module):
                    h = step(h)
                result.copy_(h[:, : shape[0]])
        return out


def _build(shapes: Mapping[str, Sequence[int]]) -> AutoencoderKL:
    """The module that weights of these shapes are meant for, on the meta device: of KL-16's sizes,
    but where they say otherwise."""

    def outputs(conv: str) -> int:
        shape = shapes.get(f"{conv}.weight", ())
        return shape[0] if len(shape) == 4 else 0

    ch = outputs("encoder.conv_in")
    convs = (f"encoder.down.{level}.block.0.conv1" for level in itertools.count())
    widths = [*itertools.takewhile(bool, map(outputs, convs))]
    if not ch or ch % GROUPS or not widths or any(width % ch for width in widths):
        ch, widths = 128, [128, 128, 256, 256, 512]
    with without_storage():
        module = AutoencoderKL(
            outputs("post_quant_conv") or 16, [width // ch for width in widths], ch=ch
        )
    return module.eval()


def load_tokenizer(path: str | Path) -> KLTokenizer:
    """The tokenizer in kl16.ckpt, or in a .safetensors or .pth file with its keys.

    Widths and numbers of levels and channels are the file's. As in the original, a pickle's entry
    "model" is taken, and what belongs to none of the module's parts (a loss, say) is left out.
    Raises FileNotFoundError, or CheckpointError naming file and key.
    """
    file = read_weights(Path(path), entries=("model",))
    weights = {
        name: value for name, value in file.weights.items() if name.partition(".")[0] in PARTS
    }
    module = _build({name: value.shape for name, value in weights.items()})
    dataclasses.replace(file, weights=weights).fill(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return KLTokenizer(module)
