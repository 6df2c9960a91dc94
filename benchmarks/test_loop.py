"""The autoregressive loop: a small `generate` by marfast beside the same loop in plain PyTorch.

    pytest benchmarks/test_loop.py --benchmark-only
    pytest benchmarks --benchmark-only -k loop --benchmark-save=before
    pytest benchmarks --benchmark-only -k loop --benchmark-compare

Timed as the ops are (test_ops.py): in turn, and refused where the images differ. A comparison shows
an earlier run under this run's name, ratio included.
"""

import numpy as np
import pytest
import torch

import marfast
from benchmarks.test_ops import timed
from marfast.ops.runtime import cpu

LABELS = [0, 3, 5, 8]
ROUNDS = 15
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # RMS, of images in [-1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_loop(dtype, benchmark):
    ok, reason = cpu.is_built()
    if not ok:
        pytest.skip(f"only the reference can run this here: {reason}")
    model = marfast.load("fashion-mnist", dtype=None if dtype == torch.float32 else dtype)

    def generate() -> torch.Tensor:
        return model.generate(LABELS, seed=0)

    def reference() -> torch.Tensor:
        with marfast.backend("reference"):
            return model.generate(LABELS, seed=0)

    off = float((generate() - reference()).square().mean().sqrt())
    assert off < TOLERANCE[dtype]

    seconds: list[float] = []

    def time_the_reference() -> None:
        seconds.append(timed(reference, ()))

    benchmark.pedantic(generate, setup=time_the_reference, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.disabled:  # asked for, or by pytest-xdist: each has run once
        return

    median = benchmark.stats.stats.median
    p20, p50, p80 = np.percentile(seconds[-ROUNDS:], [20, 50, 80])
    benchmark.stats.name = f"loop {str(dtype)[6:]}: {p50 / median:.2f}x PyTorch"
    benchmark.extra_info.update(
        images=len(LABELS),
        iterations=model.settings.num_iter,
        steps=model.settings.steps,
        difference=off,
        kernels=cpu.describe(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        reference_p20_p50_p80=[p20, p50, p80],
        speedup=p50 / median,
    )
