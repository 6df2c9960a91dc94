"""`edit` against a plain loop over the reference's own methods, and what it promises."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marfast
from marfast.generation import Pipeline
from marfast.generation.edit import paste, token_mask
from marfast.generation.start import Start, groups
from marfast.model import FastMAR
from marfast.model.autoencoder import KLTokenizer
from marfast.ops import choice
from marfast.ops.runtime import cpu
from marfast.reference.mar import first_in_order, guidance_scale, mask_lengths, random_orders
from tests.generation.test_generate import global_state, seed_all
from tests.models import LATENT, tiny_autoencoder, tiny_pipeline, tiny_weights

LABELS = [3, 1, None]
BACKENDS = ["reference", "torch", "auto", *(["cpu"] if cpu.is_built()[0] else [])]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with marfast.backend(request.param):
        yield request.param


def images(batch: int = 3, seed: int = 0, shape: tuple[int, ...] = (1, 16, 16)) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def masks(*unknown: int) -> Tensor:
    """Of so many tokens of 4×4 pixels, the last ones of each image: [B, 16, 16]."""
    tokens = torch.stack([torch.arange(16) >= 16 - count for count in unknown]).view(-1, 4, 4)
    return tokens.repeat_interleave(4, 1).repeat_interleave(4, 2)


@pytest.mark.parametrize("options", [{}, {"cfg": 2.5}, {"part": 2}, {"num_iter": 16}], ids=str)
@pytest.mark.parametrize("seed", [7, [5, 6, 7], None], ids=str)
def test_all_unknown_is_a_generation(seed: Any, options: dict[str, Any], backend: str) -> None:
    pipeline = tiny_pipeline()
    seed_all(9)
    expected = pipeline.generate(LABELS, seed=seed, **options)
    state = global_state()
    seed_all(9)
    made = pipeline.edit(images(), torch.ones(3, 16, 16), LABELS, seed=seed, **options)
    assert global_state() == state
    assert torch.equal(made, expected)


@pytest.mark.parametrize("seed", [7, [5, 6, 7], None], ids=str)
def test_none_unknown_is_the_input_without_work(seed: Any, backend: str) -> None:
    def progress(done: int, of: int) -> None:
        raise AssertionError("work began")

    given, before = images(), global_state()
    with choice.used() as used:
        made = tiny_pipeline().edit(given, masks(0, 0, 0), LABELS, seed=seed, progress=progress)
    assert torch.equal(made, given)
    assert made is not given
    assert not used
    assert global_state() == before


def by_the_reference(
    module: Any, tokens: Tensor, unknown: Tensor, labels: Tensor, num_iter: int, cfg: float
) -> Tensor:
    """Tokens made anew by the module's own methods, with masks where the loop has indices."""
    batch, count = len(tokens), int(unknown[0].sum())
    tokens = tokens.clone()
    orders = torch.tensor([
        sorted(order, key=lambda place: not unknown[row, place])
        for row, order in enumerate(random_orders(batch, 16).tolist())
    ])  # fmt: skip
    lengths = mask_lengths(count, num_iter)
    embedding = torch.cat([module.class_emb(labels), module.fake_latent.repeat(batch, 1)])
    for k in range(num_iter):
        mask = first_in_order(orders, lengths[k])
        left = 0 if k == num_iter - 1 else lengths[k + 1]
        predict = (mask - first_in_order(orders, left)).bool()
        x = module.forward_mae_encoder(tokens.repeat(2, 1, 1), mask.repeat(2, 1), embedding)
        z = module.forward_mae_decoder(x, mask.repeat(2, 1))[predict.repeat(2, 1)]
        scale = guidance_scale(cfg, "linear", 16, lengths[k + 1])
        tokens[predict] = module.diffloss.sample(z, 0.9, scale).chunk(2)[0]
    return tokens


@pytest.mark.parametrize(("count", "num_iter"), [(1, 1), (5, 3), (12, 12), (16, 5)])
@torch.no_grad()
def test_equals_the_references_methods(count: int, num_iter: int) -> None:
    pipeline, given = tiny_pipeline(), images()
    module = pipeline.model.module
    chosen = torch.stack([torch.randperm(16) < count for _ in range(3)])
    mask = chosen.view(3, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)
    seed_all(4)
    labels = torch.tensor([3, 1, 4])
    tokens = by_the_reference(module, module.patchify(given), chosen, labels, num_iter, 2.5)
    with marfast.backend("reference"):
        made = pipeline.edit(
            given, mask, labels, seed=4, num_iter=num_iter, cfg=2.5, temperature=0.9
        )
    assert torch.equal(made, module.unpatchify(tokens).clamp(-1, 1))


def test_not_one_pixel_outside_the_mask_changes() -> None:
    given, mask = images(), torch.zeros(3, 16, 16)
    mask[0, 3, 5] = 1
    mask[1, 2:9, 1:15] = 0.5
    mask[2, :, 7:] = -3
    made = tiny_pipeline().edit(given, mask[:, None], LABELS, seed=1)
    inside = mask[:, None] != 0
    assert torch.equal(made[~inside], given[~inside])
    assert (made[inside] != given[inside]).float().mean() > 0.9


def test_a_seed_for_each_image_makes_it_independent_of_its_batch() -> None:
    pipeline, given, mask = tiny_pipeline(), images(4), masks(5, 0, 16, 5)
    labels, seeds = [1, 2, None, 3], [8, 9, 8, 7]
    together = pipeline.edit(given, mask, labels, seed=seeds, cfg=2.0)
    for i in range(4):
        row = slice(i, i + 1)
        alone = pipeline.edit(given[row], mask[row], labels[i], seed=seeds[row], cfg=2.0)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-5)


def test_one_seed_goes_from_group_to_group() -> None:
    pipeline, given, mask = tiny_pipeline(), images(4), masks(5, 9, 5, 0)
    seed_all(3)
    first = pipeline.edit(given[[0, 2]], mask[[0, 2]], [1, 2])
    second = pipeline.edit(given[[1]], mask[[1]], 3)
    made = pipeline.edit(given, mask, [1, 3, 2, 4], seed=3)
    assert torch.equal(made[[0, 2]], first)
    assert torch.equal(made[[1]], second)
    assert torch.equal(made[3], given[3])


@pytest.mark.parametrize("seed", [2, [4, 5, 6, 7, 8], None], ids=str)
def test_parts_do_not_change_images(seed: Any) -> None:
    pipeline, given, mask = tiny_pipeline(), images(5), masks(6, 9, 6, 6, 9)

    def run(part: int | None) -> tuple[Tensor, Any]:
        seed_all(1)
        return pipeline.edit(given, mask, 1, seed=seed, cfg=2.0, part=part), global_state()

    (whole, state), (split, after) = run(None), run(2)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
    assert after == state


def test_a_seed_leaves_the_global_generators_alone() -> None:
    before = global_state()
    for seed in (1, [1, 2, 3]):
        tiny_pipeline().edit(images(), masks(3, 4, 5), LABELS, seed=seed)
    assert global_state() == before


@pytest.mark.parametrize(
    ("count", "num_iter", "iterations"), [(16, None, 5), (12, None, 4), (1, None, 1), (12, 16, 12)]
)
def test_iterations_follow_the_unknown_tokens(
    count: int, num_iter: int | None, iterations: int
) -> None:
    seen: list[tuple[int, int]] = []
    tiny_pipeline().edit(
        images(),
        masks(count, 0, count),
        1,
        seed=1,
        num_iter=num_iter,
        progress=lambda *p: seen.append(p),
    )
    assert seen == [(i + 1, iterations) for i in range(iterations)]


def test_a_start_puts_the_unknown_first_and_keeps_both_orders() -> None:
    orders = random_orders(2, 6, np.random.RandomState(0))
    unknown = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0]]).bool()
    found = Start(torch.zeros(2, 6, 1), unknown, 3).order(orders).tolist()
    for row, order in enumerate(orders.tolist()):
        assert found[row] == sorted(order, key=lambda place: not unknown[row, place])
    assert [(i, s.count) for i, s in groups(torch.zeros(3, 2, 1), torch.eye(3, 2) > 0)] == [
        ([0, 1], 1)
    ]


def test_a_token_is_unknown_by_any_pixel_and_grows_to_all_sides() -> None:
    mask = torch.zeros(2, 8, 12, dtype=torch.bool)
    mask[0, 3, 11] = True
    none = [0] * 12
    assert token_mask(mask, (4, 3), 0).int().tolist() == [[0, 0, 0, 0, 0, 1, *[0] * 6], none]
    grown = [0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0]
    assert token_mask(mask, (4, 3), 1).int().tolist() == [grown, none]
    assert token_mask(mask, (4, 3), 4)[0].all()


def test_feathered_pixels_go_over_inside_the_mask_only() -> None:
    mask = torch.ones(1, 1, 8, dtype=torch.bool)
    mask[..., :3] = False
    pasted = paste(torch.zeros(1, 2, 1, 8), torch.ones(1, 2, 1, 8), mask, 2)
    for channel in pasted[0, :, 0]:
        expected = torch.tensor([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1])  # no edge at the image's own
        torch.testing.assert_close(channel, expected)
        assert channel[5:].eq(1).all()
    given, mask = images(1), masks(8)
    sharp = tiny_pipeline().edit(given, mask, 1, seed=1)
    soft = tiny_pipeline().edit(given, mask, 1, seed=1, feather=3)
    assert torch.equal(soft[:, :, :8], given[:, :, :8])
    assert torch.equal(soft[:, :, 11:], sharp[:, :, 11:])
    assert not torch.equal(soft[:, :, 8:11], sharp[:, :, 8:11])


def test_tokens_come_back_as_tokens() -> None:
    pipeline, given, unknown = tiny_pipeline(), images(), masks(5, 16, 0)
    module = pipeline.model.module
    tokens, mask = module.patchify(given), token_mask(unknown, (4, 4), 0)
    made = pipeline.edit(tokens, mask, LABELS, seed=2)
    assert torch.equal(made[~mask], tokens[~mask])
    expected = pipeline.edit(given, unknown, LABELS, seed=2)
    assert torch.equal(module.unpatchify(made).clamp(-1, 1), expected)


def latent_pipeline(tokenizer: Any) -> Pipeline:
    module = LATENT.build(steps="4")
    module.load_state_dict(tiny_weights(LATENT), assign=True)
    return Pipeline(FastMAR(module), tiny_pipeline().settings, tokenizer=tokenizer)


class Counting(KLTokenizer):
    encoded = 0

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return super().encode(images)


def test_a_tokenizer_encodes_what_is_partly_known_and_the_mask_grows() -> None:
    pipeline = latent_pipeline(Counting(tiny_autoencoder()))
    given = images(4, shape=(3, 8, 8))
    mask = torch.zeros(4, 8, 8)
    mask[0, 7, 7], mask[1, 0, 3], mask[2] = 1, 1, 1
    seen: list[int] = []
    made = pipeline.edit(
        given, mask, 1, seed=[1, 2, 3, 4], num_iter=16, progress=lambda *p: seen.append(p[1])
    )
    assert pipeline.tokenizer.encoded == 2
    assert seen[0] == 4 + 6 + 16  # a corner, a border, and all
    inside = (mask != 0)[:, None].expand_as(given)
    assert torch.equal(made[~inside], given[~inside])
    assert torch.equal(made[2:3], pipeline.generate(1, seed=[3], num_iter=16))
    assert (made[inside] != given[inside]).all()


class Half(KLTokenizer):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).half()


def test_a_tokenizer_may_encode_in_half_precision() -> None:
    given, mask = images(2, shape=(3, 8, 8)), torch.zeros(2, 8, 8)
    mask[:, 7, 7] = 1
    exact, half = (
        latent_pipeline(of(tiny_autoencoder())).edit(given, mask, 1, seed=1, num_iter=2)
        for of in (KLTokenizer, Half)
    )
    assert half.dtype == exact.dtype
    assert torch.equal(half[..., :7], given[..., :7])


def test_latents_without_a_tokenizer_come_back_as_latents() -> None:
    pipeline = latent_pipeline(None)
    given = 3 * images(2, shape=(4, 4, 4))
    mask = torch.ones(2, 4, 4)
    assert torch.equal(pipeline.edit(given, mask, 1, seed=1), pipeline.generate([1, 1], seed=1))
    mask[:, 1] = 0
    made = pipeline.edit(given, mask, 1, seed=1)
    assert torch.equal(made[:, :, 1], given[:, :, 1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, np.float32])
def test_other_floats_and_arrays(dtype: Any) -> None:
    given, mask = images(), masks(4, 5, 0)
    other = given.numpy() if dtype is np.float32 else given.to(dtype)
    wanted = torch.as_tensor(other).float()
    expected = tiny_pipeline().edit(wanted, mask, 1, seed=1)
    made = tiny_pipeline().edit(other, mask.numpy(), np.int64(1), seed=1)
    assert torch.equal(made, expected)


NAN, BIG = images(), images()
NAN[1, 0, 3, 3] = math.nan
BIG[1, 0, 3, 3] = 1.5


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("images", images().byte(), "images: torch.uint8; allowed are floating-point numbers"),
        ("images", images(0), "images: none given"),
        ("images", images()[0, 0], "images: shape [16, 16]; allowed are [B, 1, 16, 16] or [B, 16"),
        ("images", images(shape=(3, 16, 16)), "images: shape [3, 3, 16, 16]; allowed are [B, 1, "),
        ("images", images(shape=(1, 16, 20)), "images: shape [3, 1, 16, 20]; allowed"),
        ("images", NAN, "images: NaN or infinite values"),
        ("images", BIG, "images: values from -"),
        ("images", [[0.0]], "images: list; allowed are tensors [B, 1, 16, 16]"),
        ("images", np.zeros(3, dtype=object), "images: object; allowed are tensors"),
        ("mask", torch.ones(3, 16, 12), "mask: shape [3, 16, 12]; allowed are [3, 16, 16] or [3"),
        ("mask", torch.ones(2, 16, 16), "mask: shape [2, 16, 16]; allowed are [3, 16, 16]"),
        ("mask", torch.ones(16, 16), "mask: shape [16, 16]; allowed"),
        ("mask", torch.full((3, 16, 16), math.nan), "mask: NaN values"),
        ("mask", None, "mask: NoneType; allowed are tensors"),
        ("labels", [1, 2], "labels: 2 labels for 3 images; one for each"),
        ("labels", 10, "labels: 10; allowed are 0 to 9, "),
        ("seed", [1, 2], "seed: 2 seeds for 3"),
        ("grow", -1, "grow: -1; allowed are 0 to 4"),
        ("grow", 1.0, "grow: 1.0"),
        ("feather", 17, "feather: 17; allowed are 0 to 16"),
        ("num_iter", 17, "num_iter: 17; allowed are 1 to 16"),
        ("steps", 1, "steps: 1"),
        ("part", 0, "part: 0"),
    ],
)
def test_a_bad_argument_is_named_before_any_work(argument: str, value: Any, said: str) -> None:
    def progress(done: int, of: int) -> None:
        raise AssertionError("work began")

    before = global_state()
    options = {"images": images(), "mask": masks(3, 4, 5), "progress": progress, argument: value}
    with pytest.raises(ValueError) as error:
        tiny_pipeline().edit(**options)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert global_state() == before


def test_tokens_have_no_edge_to_feather() -> None:
    with pytest.raises(ValueError, match="feather: 2; allowed is 0 where tokens"):
        tiny_pipeline().edit(torch.zeros(1, 16, 16), torch.ones(1, 16), feather=2)
