"""What this machine can do at most: the limits that results are reported as a share of."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from marfast import ops
from marfast.bench import timing
from marfast.ops.head import HeadShape
from marfast.ops.runtime import cpu
from marfast.reference import create_diffusion

LEVELS = [1 << 18, 1 << 20, 1 << 23, 3 << 23, 3 << 24, 1 << 27, 1 << 28]
"""Bytes: in L2, in L3, in memory, on the machines at hand."""


@dataclass(frozen=True)
class Floors:
    """Measured with torch's thread count."""

    flops: dict[str, float]  # a second, by dtype: the fastest matrix product at its best size
    bandwidth: dict[int, float]  # bytes a second read from a buffer of so many bytes, repeatedly
    barrier: float  # seconds from one barrier of the head's kernel to the next, with no work

    def seconds(self, flops: float, bytes_read: int, dtype: str = "float32") -> float:
        """No kernel can be faster: all of the arithmetic, or all of the reading."""
        nearest = min(self.bandwidth, key=lambda size: abs(size - bytes_read))
        return max(flops / self.flops[dtype], bytes_read / self.bandwidth[nearest])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def best(function: Callable[[], object], seconds: float = 0.3) -> float:
    """The shortest of the runs that fit into so many seconds."""
    function()
    shortest, spent = float("inf"), 0.0
    while spent < seconds:
        took = timing.seconds(function)
        shortest, spent = min(shortest, took), spent + took
    return shortest


def peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """The fastest matrix product that is known here, the library's or ours; flops a second."""
    most = 0.0
    for n in (512, 1024, 1536) if device == "cpu" else (4096, 8192):
        a, b = torch.randn(2, n, n).to(device, dtype)
        out = torch.empty(n, n, dtype=dtype, device=device)
        products = [functools.partial(torch.mm, a, b, out=out)]
        if device == "cpu" and cpu.is_built()[0]:
            bias = torch.zeros(n, dtype=dtype)
            packed = ops.pack_linear(b, bias)
            products.append(functools.partial(ops.fused_linear, a.float(), b, bias, packed=packed))
        most = max(most, *(2 * n**3 / best(product) for product in products))
    return most


def bandwidth(size: int, device: str = "cpu") -> float:
    """Bytes a second summed from a buffer of `size` bytes, once or several times a call."""
    buffer = torch.ones(size // 4, device=device)
    repeats = max(1, (1 << 26) // size)
    several = buffer.expand(repeats, -1)
    return max(size / best(buffer.sum), size * repeats / best(several.sum))


def barrier() -> float:
    """A head one number wide: three barriers a block and next to nothing between them."""
    depth, steps = 400, 8
    shape = HeadShape(channels=1, condition=1, width=1, depth=depth, frequencies=1, hidden=1)
    weights = [torch.zeros(sizes) for sizes in shape.expected()]
    schedule, timesteps = create_diffusion(str(steps)).sampling_schedule()
    inputs = (torch.zeros(1, 1), torch.zeros(steps, 1, 1), torch.zeros(1, 1))
    packed = ops.pack_head(weights)

    def run() -> object:
        guidance = torch.ones(1)
        return ops.ddpm_sample(*inputs, weights, schedule, timesteps, guidance, packed=packed)

    return best(run) / (3 * depth * steps)


def measure(sizes: Sequence[int] = LEVELS, device: str = "cpu") -> Floors:
    """Peak arithmetic, reading from buffers of these sizes (bytes), and a barrier."""
    flops = {name: peak(getattr(torch, name), device) for name in ("float32", "bfloat16")}
    # a processor without bfloat16 products computes them as float32 ones
    flops["bfloat16"] = max(flops.values())
    own = device == "cpu" and cpu.is_built()[0]
    return Floors(
        flops, {size: bandwidth(size, device) for size in sizes}, barrier() if own else 0.0
    )
