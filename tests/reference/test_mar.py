"""MAR: schedules of masks and guidance, construction, and what it refuses."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from marfast.reference import MAR, mar_base, mar_huge, mar_large
from marfast.reference.mar import guidance_scale, mask_lengths, mask_ratio, random_orders
from marfast.verifying.case import numbers, reference
from marfast.verifying.cases.models import TINY, VARIANTS, tiny


@pytest.mark.parametrize("seq_len", [1, 2, 16, 49, 256])
def test_every_iteration_predicts_and_all_tokens_are_predicted(seq_len: int) -> None:
    for num_iter in range(1, seq_len + 1):
        lengths = mask_lengths(seq_len, num_iter)
        assert lengths[0] == seq_len
        assert len(lengths) == num_iter + 1
        assert min(lengths) >= 1
        predicted = [a - b for a, b in zip(lengths, [*lengths[1:-1], 0], strict=False)]
        assert min(predicted) >= 1
        assert sum(predicted) == seq_len


@pytest.mark.parametrize("num_iter", [0, -1, 17])
def test_a_number_of_iterations_that_cannot_be_is_named(num_iter: int) -> None:
    with pytest.raises(ValueError, match=f"num_iter: {num_iter}; allowed are 1 to 16"):
        mask_lengths(16, num_iter)
    with pytest.raises(ValueError, match=f"num_iter: {num_iter}; "):
        tiny(reference()).sample_tokens(1, num_iter=num_iter)


def test_linear_guidance_never_reaches_its_scale() -> None:
    lengths = mask_lengths(256, 64)
    scales = [guidance_scale(2.9, "linear", 256, length) for length in lengths[1:]]
    assert all(isinstance(s, torch.Tensor) and s.shape == (1,) for s in scales)
    values = [float(s) for s in scales]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1 + 1.9 * 255 / 256)
    assert guidance_scale(2.9, "constant", 256, lengths[1]) == 2.9


def test_an_unknown_guidance_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="cfg_schedule: 'cosine'; allowed are 'linear' and"):
        tiny(reference()).sample_tokens(1, num_iter=2, cfg=2.0, cfg_schedule="cosine")


def test_orders_are_permutations_and_one_shuffle_each() -> None:
    orders = random_orders(5, 16, np.random.RandomState(3))
    assert orders.dtype == torch.int64
    assert (orders.sort(dim=1).values == torch.arange(16)).all()
    assert torch.equal(orders[:2], random_orders(2, 16, np.random.RandomState(3)))
    assert random_orders(0, 16).shape == (0, 16)


def test_mask_ratios_lie_in_their_range() -> None:
    np.random.seed(0)
    ratios = [mask_ratio(0.7) for _ in range(200)]
    assert 0.7 <= min(ratios) < 0.75
    assert 0.95 < max(ratios) <= 1


@pytest.mark.parametrize("name", VARIANTS)
def test_patches_are_undone(name: str) -> None:
    model = tiny(reference(), **VARIANTS[name])
    side = model.img_size // model.vae_stride
    images = numbers(2, model.vae_embed_dim, side, side)
    tokens = model.patchify(images)
    assert tokens.shape == (2, model.seq_len, model.token_embed_dim)
    assert torch.equal(model.unpatchify(tokens), images)


def test_patches_run_row_by_row() -> None:
    model = MAR(**TINY)
    image = torch.arange(256.0).view(1, 1, 16, 16)
    assert model.patchify(image)[0, 1].tolist() == image[0, 0, :4, 4:8].flatten().tolist()


@pytest.mark.parametrize(
    ("factory", "width", "depth"),
    [(mar_base, 768, 12), (mar_large, 1024, 16), (mar_huge, 1280, 20)],
)
def test_the_factories_are_the_papers_sizes(factory: Any, width: int, depth: int) -> None:
    with torch.device("meta"):
        model = factory(num_sampling_steps="25")
    assert all(p.is_meta for p in model.parameters())
    assert len(model.encoder_blocks) == len(model.decoder_blocks) == depth
    assert model.z_proj.out_features == width
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert len(model.diffloss.net.res_blocks) == 3
    assert model.diffloss.net.model_channels == 1024
    assert model.diffloss.gen_diffusion.num_timesteps == 25


def test_a_model_built_on_the_meta_device_takes_weights() -> None:
    filled = tiny(reference())
    with torch.device("meta"):
        model = MAR(**TINY)
    model.load_state_dict(filled.state_dict(), assign=True)
    found = []
    for each in (filled, model.eval()):
        torch.manual_seed(0)
        np.random.seed(0)
        found.append(each.sample_tokens(2, num_iter=3, cfg=2.0))
    assert torch.equal(*found)


def test_norm_layer_is_what_makes_the_norms() -> None:
    default = MAR(**TINY)
    assert default.encoder_norm.eps == default.encoder_blocks[0].norm1.eps == 1e-5
    assert default.z_proj_ln.eps == default.diffloss.net.res_blocks[0].in_ln.eps == 1e-6
    custom = MAR(**TINY | {"norm_layer": partial(nn.LayerNorm, eps=0.5, bias=False)})
    assert custom.decoder_norm.eps == custom.decoder_blocks[1].norm2.eps == 0.5
    assert custom.decoder_norm.bias is None
    assert MAR(**TINY | {"norm_layer": nn.RMSNorm}).decoder_norm.__class__ is nn.RMSNorm


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads: 5 does not divide the embedding width 48"):
        MAR(**TINY | {"encoder_num_heads": 5})


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 2])])
def test_an_image_of_a_guided_batch_depends_on_its_label(labels: torch.Tensor | None) -> None:
    model = tiny(reference())
    torch.manual_seed(1)
    np.random.seed(1)
    images = model.sample_tokens(2, num_iter=2, cfg=2.0, labels=labels)
    assert images.shape == (2, 1, 16, 16)
    assert images.isfinite().all()
    assert not torch.equal(images[0], images[1])
