"""`outpaint`: where windows lie, what they leave alone, and what they are told."""

from typing import Any

import pytest
import torch

from marfast.generation.outpaint import SIDES, extended, positions
from marfast.model.autoencoder import KLTokenizer
from tests.generation.test_edit import images, latent_pipeline
from tests.generation.test_generate import global_state
from tests.models import tiny_autoencoder, tiny_pipeline


@pytest.mark.parametrize("overlap", [1, 8, 15])
@pytest.mark.parametrize("whole", [16, 17, 40, 61])
@pytest.mark.parametrize("known", [(0, 16), (1, 17), (3, 11), (24, 40), (4, 37), (0, 40)])
def test_windows_cover_a_line_and_overlap_what_is_known(
    whole: int, known: tuple[int, int], overlap: int
) -> None:
    first, last = known
    if last > whole:
        return
    found = positions(whole, first, last, 16, overlap)
    assert all(0 <= x <= whole - 16 for x in found)
    assert len(set(found)) == len(found)
    done = set(range(first, last))
    assert len(done & set(range(found[0], found[0] + 16))) == min(16, last - first)
    for x in found:
        window = set(range(x, x + 16))
        assert len(done & window) >= min(overlap, last - first)
        done |= window
    assert done == set(range(whole))


def test_what_is_added_repeats_the_border_and_what_is_taken_away_goes() -> None:
    given = images(2)
    canvas, missing = extended(given, {"left": 3, "right": -2, "top": 0, "bottom": 1})
    assert canvas.shape == (2, 1, 17, 17)
    assert torch.equal(canvas[..., :16, 3:], given[..., :-2])
    assert torch.equal(canvas[..., 16, 3:], given[..., 15, :-2])
    assert not missing[:16, 3:].any()
    assert missing[:, :3].all()
    assert missing[16].all()


@pytest.mark.parametrize(
    "sides", [{"left": 8}, {"right": 21, "top": 3}, {"left": 4, "right": 30, "bottom": 17}], ids=str
)
def test_what_is_known_stays_and_all_else_is_made(sides: dict[str, int]) -> None:
    given = images(2)
    made = tiny_pipeline().outpaint(given, [1, None], seed=[3, 4], num_iter=2, **sides)
    before, missing = extended(given, dict.fromkeys(SIDES, 0) | sides)
    assert made.shape == before.shape
    assert torch.equal(made[..., ~missing], before[..., ~missing])
    assert (made[..., missing] != before[..., missing]).float().mean() > 0.95


def test_content_shifted_inside_the_grid_is_one_edit() -> None:
    pipeline, given = tiny_pipeline(), images()
    made = pipeline.outpaint(given, 1, left=6, right=-6, seed=2, cfg=2.0)
    before, missing = extended(given, {"left": 6, "right": -6, "top": 0, "bottom": 0})
    assert torch.equal(made, pipeline.edit(before, missing.expand(3, -1, -1), 1, seed=2, cfg=2.0))
    small = pipeline.outpaint(given[..., :10], 1, left=6, seed=2, cfg=2.0)
    assert torch.equal(small, made)


def test_windows_go_on_with_the_random_numbers_and_count_their_iterations() -> None:
    pipeline, given = tiny_pipeline(), images()
    seen: list[tuple[int, int]] = []
    made = pipeline.outpaint(
        given, 1, right=16, overlap=8, seed=2, num_iter=3, progress=lambda *p: seen.append(p)
    )
    assert seen == [(i + 1, 6) for i in range(6)]
    half = made[..., 8:24]
    first, _ = extended(given, {"left": -8, "right": 8, "top": 0, "bottom": 0})
    mask = torch.zeros(3, 16, 16)
    mask[..., 8:] = 1
    assert torch.equal(half, pipeline.edit(first, mask, 1, seed=2, num_iter=3))
    assert not torch.equal(made[..., 24:], made[..., 16:24])


def test_nothing_to_add_is_the_input_without_work() -> None:
    given, before = images(shape=(1, 20, 33)), global_state()
    assert torch.equal(tiny_pipeline().outpaint(given), given)
    assert global_state() == before


def test_a_tokenizers_images_and_latents() -> None:
    given = images(2, shape=(3, 8, 8))
    made = latent_pipeline(None).outpaint(torch.cat([given, given[:, :1]], 1)[..., :4, :4], left=2)
    assert made.shape == (2, 4, 4, 6)
    made = latent_pipeline(KLTokenizer(tiny_autoencoder())).outpaint(given, 1, bottom=5, seed=1)
    assert made.shape == (2, 3, 13, 8)
    assert torch.equal(made[:, :, :8], given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"left": -16}, "left: -16; allowed is to take away up to 15"),
        ({"left": -8, "right": -9}, "right: -9; allowed is to take away up to 15"),
        ({"top": -1}, "images: 16×16 pixels become 16×15; allowed are 16×16 and more"),
        ({"left": 1.5}, "left: 1.5"),
        ({"left": 8, "overlap": 0}, "overlap: 0; allowed are 1 to 15"),
        ({"left": 8, "overlap": 16}, "overlap: 16; allowed are 1 to 15"),
        ({"left": 8, "grow": -1}, "grow: -1; allowed are 0 to 4"),
        ({"left": 8, "labels": [1, 2]}, "labels: 2 labels for 3 images"),
        ({"images": images(0)}, "images: none given"),
        ({"images": images(shape=(3, 16, 16))}, "images: shape [3, 3, 16, 16]; allowed are [B, 1,"),
        ({"images": images()[:, :, :0]}, "images: shape [3, 1, 0, 16]; allowed are sizes from 1"),
        ({"images": images() * 2}, "images: values from"),
        ({"left": 8, "num_iter": 17}, "num_iter: 17"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        tiny_pipeline().outpaint(**({"images": images()} | options))
    assert str(error.value).startswith(said)
