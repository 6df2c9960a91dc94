"""`ddpm_sample` as a sequence of launches: their order, memory, and replay by a graph."""

import torch
from torch import Tensor

from marfast import ops
from marfast.ops import choice
from marfast.ops.head import gpu
from marfast.ops.op import OPS
from marfast.reference.head_weights import HeadWeights
from tests.models import tiny_pipeline
from tests.ops.heads import sample_inputs
from tests.triton import recorder

SIZES = {"width": 16, "depth": 1, "steps": 2, "channels": 4, "frequencies": 8}


def sample(*args) -> Tensor:
    op = OPS["ddpm_sample"]
    return op.backends["triton"].run(op.bind(*args))


def assert_same(actual: Tensor, expected: Tensor, label: str = "") -> None:
    """The interpreter's products are numpy's, whose order of additions depends on a tile's rows on
    some processors: the same numbers, but for rounding."""
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=1e-5, msg=lambda told: f"{label} {told}"
    )


def test_the_launches_of_a_loop():
    args = sample_inputs(2, **SIZES)
    _, _, recorded = recorder.capture(lambda: sample(*args))
    once = ["fused_linear_kernel"] * 3
    modulation = ["silu_sum_kernel", *["fused_linear_kernel"] * 2]
    step = ["fused_linear_kernel"] * (1 + 2 + 1) + ["ddpm_step_kernel"]
    assert recorded.launches == once + modulation + step * 2


def test_a_budget_of_memory_changes_no_token(monkeypatch):
    args = sample_inputs(5, **(SIZES | {"steps": 3}))
    expected = sample(*args)
    pair = 4 * 5 * SIZES["width"]  # float32 numbers: three a block, two of the final layer
    rows = 10
    for pairs in (2 * rows, rows, 3, 0):  # two steps at a time, one, groups of tokens, one by one
        monkeypatch.setattr(gpu, "MODULATION_BUDGET", pairs * pair)
        assert gpu.pairs_in_budget(HeadWeights.of(args[3])) == max(1, pairs)
        assert_same(sample(*args), expected, str(pairs))


def test_any_split_of_the_tokens_gives_the_same_tokens():
    noise, step_noise, cond, *rest = sample_inputs(7, guided=False, **SIZES)
    whole = sample(noise, step_noise, cond, *rest)
    for part in (slice(0, 1), slice(1, 3), slice(3, 7)):
        assert_same(sample(noise[part], step_noise[:, part], cond[part], *rest), whole[part])


def test_float16_stays_finite_where_the_reference_does_not():
    args = sample_inputs(4, steps=2, dtype=torch.float16)
    args[3][10].mul_(8e4)  # of the first block's first product: its results pass 65504
    assert not OPS["ddpm_sample"].plain(*args).isfinite().all()
    with ops.backend("triton"):
        assert ops.ddpm_sample(*args).isfinite().all()


def test_what_was_recorded_does_it_again_on_other_numbers():
    args, other = (sample_inputs(3, seed=seed, **SIZES) for seed in (0, 1))
    replay, result, _ = recorder.capture(lambda: sample(*args))
    for place in (0, 1, 2, 6):  # noise, step noise, condition, guidance
        args[place].copy_(other[place])
    args[3][9].mul_(2)
    replay()
    assert_same(result, sample(*args))


def test_a_whole_model_generates():
    pipeline = tiny_pipeline(steps=2, num_iter=2)
    with ops.backend("triton"), choice.used() as used:
        images = pipeline.generate(labels=[1, 2], seed=0)
    assert used["ddpm_sample"] == {"triton"}
    with ops.backend("reference"):
        expected = pipeline.generate(labels=[1, 2], seed=0)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
