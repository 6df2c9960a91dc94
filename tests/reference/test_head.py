"""The diffusion head and its sampler."""

import pytest
import torch

from marfast.reference import DiffLoss, SimpleMLPAdaLN
from marfast.reference.diffusion import HeadOptions, ddpm_step
from marfast.reference.head import timestep_embedding
from marfast.verifying.case import fill, numbers
from tests.helpers import assert_bitwise_equal


def diffloss(channels: int = 4, steps: str = "5", clip_denoised: bool = False) -> DiffLoss:
    made: DiffLoss = fill(
        DiffLoss(
            channels, 12, depth=2, width=20, num_sampling_steps=steps, clip_denoised=clip_denoised
        )
    )
    return made


def test_a_new_head_predicts_zero() -> None:
    net = SimpleMLPAdaLN(4, 20, 8, 12, 2)
    assert not net(numbers(3, 4), torch.arange(3), numbers(3, 12)).any()


def test_time_embedding_has_cosines_first() -> None:
    embedding = timestep_embedding(torch.tensor([0, 3]), 7)
    assert embedding.shape == (2, 7)
    assert embedding[0].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert embedding[1, 0] == torch.cos(torch.tensor(3.0))
    assert embedding[1, 3] == torch.sin(torch.tensor(3.0))


def test_guidance_of_one_is_the_conditional_head() -> None:
    net = diffloss().net
    x, t, c = numbers(6, 4), torch.full((6,), 500), numbers(6, 12, seed=1)
    plain = net(torch.cat([x[:3], x[:3]]), t, c)
    guided = net.forward_with_cfg(x, t, c, 1.0)
    torch.testing.assert_close(guided[:3, :4], plain[:3, :4])
    assert_bitwise_equal(guided[3:, :4], guided[:3, :4])
    assert_bitwise_equal(guided[:, 4:], plain[:, 4:])


@pytest.mark.parametrize("scale", [2.5, torch.tensor([2.5])])
@pytest.mark.parametrize("clip", [False, True])
def test_guided_steps_need_half_of_the_rows(scale: float | torch.Tensor, clip: bool) -> None:
    """The first N rows of a guided sample, by `ddpm_step` on N rows, bit for bit."""
    loss = diffloss(clip_denoised=clip)
    z = numbers(6, 12, seed=2)
    torch.manual_seed(4)
    expected = loss.sample(z, temperature=0.9, cfg=scale)[:3]
    torch.manual_seed(4)
    x, options = torch.randn(3, 4), HeadOptions(2, 0.9, clip)
    with torch.no_grad():
        for row, t in zip(*loss.gen_diffusion.sampling_schedule(), strict=True):
            output = loss.net(torch.cat([x, x]), t.expand(6), z)
            noise = torch.randn(6, 4)[:3]
            x = ddpm_step(x, output, noise, row, torch.as_tensor(scale).reshape(1), options)
    assert_bitwise_equal(x, expected)


def test_a_clipped_sample_stays_in_range() -> None:
    z = numbers(8, 12, seed=3)
    torch.manual_seed(5)
    assert diffloss(clip_denoised=True).sample(z).abs().max() <= 1
    torch.manual_seed(5)
    assert diffloss().sample(z).abs().max() > 1


def test_one_sampling_step_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="sampling steps: 1, "):
        diffloss(steps="1").sample(numbers(2, 12))


def test_the_loss_is_of_masked_tokens_alone() -> None:
    loss, z, target = diffloss(), numbers(6, 12, seed=6), numbers(6, 4, seed=7)
    mask = torch.tensor([1.0, 0, 1, 0, 0, 1])
    found = []
    for other in (target, torch.where(mask[:, None] == 1, target, 0.5)):
        torch.manual_seed(8)
        found.append(loss(other, z, mask))
    assert_bitwise_equal(*found)
