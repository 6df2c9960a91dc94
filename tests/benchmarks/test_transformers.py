"""The study of an iteration's parts: nothing of the transformers' arithmetic is left out."""

import pytest

from benchmarks.studies import transformers
from marfast.bench import images
from marfast.checkpoints import Settings
from tests.models import tiny_pipeline


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("k", [1, 4])
def test_an_iterations_parts_are_all_of_it(k):
    module = tiny_pipeline().model.module
    settings = Settings(num_iter=5, steps=4, cfg=2.0)
    iteration = images.Iteration(module, settings, 4, 3, k)
    peak = 1e9
    row = transformers.measure("tiny", iteration, peak, rounds=1)
    parts = {part["part"]: part for part in row["parts"]}
    assert {*transformers.PARTS, "attention", "head", "transformers"} <= parts.keys()
    whole = parts["transformers"]
    flops = whole["share_of_peak"] * peak * whole["ms"] / 1e3
    made = sum(done for part, done in iteration.flops().items() if part != "head")
    assert flops == pytest.approx(made, rel=0.05)  # what rounding leaves
    assert row["ratio"] > 0
