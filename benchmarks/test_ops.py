"""Every op's example: the backend that marfast chooses beside plain PyTorch.

    make bench
    pytest benchmarks/test_ops.py --benchmark-only --benchmark-json=ops.json

Both are timed in turn, round by round, on the same inputs and with a warm cache, so that a busy
machine slows both. The table's times are the op's; its name says how many times faster that is
(median over median), and the JSON's `extra_info` has the rest. An op whose result is less accurate
than PyTorch's own is refused.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from marfast.ops.op import OPS, which
from marfast.ops.runtime import cpu
from tests.helpers import assert_as_accurate

BUDGET = 2.0  # seconds of the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(OPS))
def test_op(name, dtype, benchmark):
    op = OPS[name]
    args = op.example_args(dtype)
    backend = which(name, *args)
    assert_as_accurate(op, op.plain, [args])

    seconds: list[float] = []

    def time_the_reference() -> None:
        seconds.append(timed(op.plain, args))

    with torch.no_grad():
        once = min(timed(op.plain, args) for _ in range(5))
        rounds = min(300, max(10, int(BUDGET / once)))
        benchmark.pedantic(op, args=args, setup=time_the_reference, rounds=rounds, warmup_rounds=5)
    if benchmark.disabled:  # asked for, or by pytest-xdist: each has run once
        return

    median = benchmark.stats.stats.median
    p20, p50, p80 = np.percentile(seconds[-rounds:], [20, 50, 80])
    benchmark.stats.name = f"{name} {str(dtype)[6:]}: {p50 / median:.2f}x PyTorch"
    benchmark.extra_info.update(
        backend=backend,
        kernels=cpu.describe(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        reference_p20_p50_p80=[p20, p50, p80],
        speedup=p50 / median,
        input_bytes=sum(a.nbytes for a in args if isinstance(a, Tensor)),
    )


def timed(function: Callable[..., object], args: tuple[object, ...]) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start
