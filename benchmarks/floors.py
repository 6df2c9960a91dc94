"""What this machine can do at most: the limits that results are reported as a share of."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Floors(NamedTuple):
    """Measured with torch's thread count."""

    flops: float  # float32, a second: the library's matrix product at its best size
    bandwidth: dict[int, float]  # bytes a second read from a buffer of so many bytes, repeatedly

    def seconds(self, flops: float, bytes_read: int) -> float:
        """No kernel can be faster: all of the arithmetic, or all of the reading."""
        sizes = sorted(self.bandwidth)
        nearest = min(sizes, key=lambda size: abs(size - bytes_read))
        return max(flops / self.flops, bytes_read / self.bandwidth[nearest])


def best(function: Callable[[], object], seconds: float = 0.5) -> float:
    """The shortest of the runs that fit into so many seconds."""
    function()
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def measure(sizes: list[int]) -> Floors:
    """Peak arithmetic, and reading from buffers of these sizes (bytes)."""
    peak = 0.0
    for n in (512, 1024, 1536):
        a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
        peak = max(peak, 2 * n**3 / best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))
    bandwidth = {}
    for size in sizes:
        buffer = torch.ones(size // 4)
        bandwidth[size] = size / best(buffer.sum)
    return Floors(peak, bandwidth)
