"""`ddpm_sample` as a sequence of launches: its order, its memory, and how graphs replay it."""

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops import choice
from marfast.reference import head
from marfast.triton import graphs
from marfast.triton.ddpm_sample import sample
from marfast.triton.denoise import Head, time_embedding
from tests.models import tiny_pipeline
from tests.ops.heads import sample_inputs
from tests.triton import recorder

SIZES = {"width": 16, "depth": 1, "steps": 2, "channels": 4, "frequencies": 8}


def plain(noise, step_noise, cond, weights, schedule, timesteps, *rest, **options) -> Tensor:
    embedding = time_embedding(timesteps, weights[0].shape[1])
    return sample(noise, step_noise, cond, weights, schedule, embedding, *rest, **options)


def assert_same(actual: Tensor, expected: Tensor, label: str = "") -> None:
    """The interpreter's products are numpy's, whose order of additions depends on a tile's rows on
    some processors: the same numbers, but for rounding."""
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=1e-5, msg=lambda told: f"{label} {told}"
    )


def test_the_launches_of_a_loop():
    args = sample_inputs(2, **SIZES)
    _, _, recorded = recorder.capture(lambda: plain(*args))
    once = ["fused_linear_kernel"] * 3
    modulation = ["silu_sum_kernel", *["fused_linear_kernel"] * 2]
    step = ["fused_linear_kernel"] * (1 + 2 + 1) + ["ddpm_step_kernel"]
    assert recorded.launches == once + modulation + step * 2


def test_a_budget_of_memory_changes_no_token():
    args = sample_inputs(5, **(SIZES | {"steps": 3}))
    expected = plain(*args)
    pair = 4 * 5 * SIZES["width"]  # float32 numbers: three a block, two of the final layer
    rows = 10
    for pairs in (2 * rows, rows, 3, 0):  # two steps at a time, one, groups of tokens, one by one
        assert Head(args[3]).pairs(pairs * pair) == max(1, pairs)
        assert_same(plain(*args, budget=pairs * pair), expected, str(pairs))


def test_any_split_of_the_tokens_gives_the_same_tokens():
    noise, step_noise, cond, *rest = sample_inputs(7, guided=False, **SIZES)
    whole = plain(noise, step_noise, cond, *rest)
    for part in (slice(0, 1), slice(1, 3), slice(3, 7)):
        assert_same(plain(noise[part], step_noise[:, part], cond[part], *rest), whole[part])


def test_float16_stays_finite_where_the_reference_does_not():
    args = sample_inputs(4, steps=2, dtype=torch.float16)
    args[3][10].mul_(8e4)  # of the first block's first product: its results pass 65504
    assert not head.ddpm_sample(*args).isfinite().all()
    with ops.backend("triton"):
        assert ops.ddpm_sample(*args).isfinite().all()


def test_a_graph_serves_every_number_of_tokens_of_its_bucket(monkeypatch):
    captured = []

    def capture(function):
        replay, result, recorded = recorder.capture(function)
        captured.append(recorded)
        return replay, result

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "_buckets", graphs._buckets.copy())
    weights = sample_inputs(1, **SIZES)[3]
    for guided, tokens in ((True, 5), (True, 8), (True, 1), (True, 11), (False, 5)):
        args = list(sample_inputs(tokens, guided=guided, seed=tokens, **SIZES))
        args[3] = weights
        noise, step_noise, cond, _, schedule, timesteps, guidance, *settings = args
        guidance.fill_(1 + tokens)
        inputs = (noise, step_noise, cond, schedule, time_embedding(timesteps, 8), guidance)
        actual = graphs.sample(sample, inputs, weights, *settings)
        assert_same(actual, plain(*args), f"{tokens} tokens")
    assert len(captured) == 3  # 8 and 12 guided tokens, 8 others

    weights[9].mul_(2)  # in place: the graph reads it where it lies
    assert_same(graphs.sample(sample, inputs, weights, *settings), plain(*args))
    assert len(captured) == 3
    other = [weight.clone() for weight in weights]
    assert_same(graphs.sample(sample, inputs, other, *settings), plain(*args))
    assert len(captured) == 4


def test_a_graph_made_in_inference_mode_serves_outside(monkeypatch):
    monkeypatch.setattr(graphs, "capture", lambda f: recorder.capture(f)[:2])
    monkeypatch.setattr(graphs, "_buckets", graphs._buckets.copy())
    args = sample_inputs(2, **SIZES)
    inputs = (*args[:3], args[4], time_embedding(args[5], 8), args[6])
    with torch.inference_mode():
        graphs.sample(sample, inputs, args[3], *args[7:])
    inputs[0].requires_grad_()
    actual = graphs.sample(sample, inputs, args[3], *args[7:])
    assert not actual.requires_grad
    assert_same(actual, plain(*args).detach())


def test_a_whole_model_generates(monkeypatch):
    pipeline = tiny_pipeline(steps=2, num_iter=2)
    with ops.backend("triton"), choice.used() as used:
        images = pipeline.generate(labels=[1, 2], seed=0)
    assert used["ddpm_sample"] == {"triton"}
    with ops.backend("reference"):
        expected = pipeline.generate(labels=[1, 2], seed=0)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


def test_the_least_recently_used_graph_goes(monkeypatch):
    count = iter(range(100))
    monkeypatch.setattr(
        graphs, "capture", lambda f: (lambda: None, torch.full((8, 4), next(count)))
    )
    monkeypatch.setattr(graphs, "_buckets", graphs._buckets.copy())
    monkeypatch.setattr(graphs, "KEPT", 2)
    weights, inputs, made = {}, {}, {}
    for name in "abcab":
        if name not in weights:
            args = sample_inputs(2, **SIZES)
            weights[name] = args[3]
            embedding = time_embedding(args[5], 8)
            inputs[name] = (*args[:3], args[4], embedding, args[6])
        result = graphs.sample(sample, inputs[name], weights[name], 1.0, True)
        made.setdefault(name, []).append(int(result[0, 0]))
    assert made == {"a": [0, 3], "b": [1, 4], "c": [2]}


def test_what_cannot_be_captured_runs_as_launches_and_says_why(monkeypatch):
    def capture(function):
        raise RuntimeError("the stream is busy elsewhere")

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "_buckets", graphs._buckets.copy())
    args = sample_inputs(2, **SIZES)
    inputs = (*args[:3], args[4], time_embedding(args[5], 8), args[6])
    with pytest.warns(RuntimeWarning, match="couldn't be captured: the stream is busy elsewhere"):
        actual = graphs.sample(sample, inputs, args[3], *args[7:])
    assert_same(actual, plain(*args))
    assert_same(graphs.sample(sample, inputs, args[3], *args[7:]), plain(*args))


def test_buckets_hold_their_tokens_and_waste_less_than_half():
    for tokens in range(1, 3000):
        size = graphs.bucket(tokens)
        assert tokens <= size < max(9, 1.5 * tokens)
        assert graphs.bucket(size) == size
