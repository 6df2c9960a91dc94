"""The autoencoder's parts; golden values and `marfast verify --original` compare the whole."""

import math

import pytest
import torch

from marfast.reference import DiagonalGaussianDistribution
from marfast.reference.vae import attention, group_norm_silu, pad_for_stride_2, upsample
from marfast.verifying.case import numbers
from tests.helpers import assert_bitwise_equal


def test_every_group_is_normalised_by_itself() -> None:
    x = numbers(2, 6, 4, 5, scale=3.0) + torch.arange(6.0).view(6, 1, 1)
    y = group_norm_silu(x, torch.ones(6), torch.zeros(6), groups=3, silu=False)
    of_groups = y.unflatten(1, (3, 2)).flatten(2)
    torch.testing.assert_close(of_groups.mean(2), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(of_groups.std(2, unbiased=False), torch.ones(2, 3))
    activated = group_norm_silu(x, torch.ones(6), torch.zeros(6), groups=3)
    torch.testing.assert_close(activated, torch.nn.functional.silu(y))


def test_attention_is_one_head_over_all_positions() -> None:
    q, k, v = (numbers(2, 8, 3, 4, seed=seed) for seed in range(3))
    rows = [x.flatten(2).transpose(1, 2)[:, None] for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*rows)
    expected = expected[:, 0].transpose(1, 2).reshape(2, 8, 3, 4)
    torch.testing.assert_close(attention(q, k, v), expected)


def test_a_pixel_becomes_four_and_padding_is_below_and_right() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert upsample(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
    assert pad_for_stride_2(x).tolist() == [[[[1, 2, 0], [0, 0, 0]]]]


@pytest.mark.parametrize(
    ("logvar", "std"), [(0.0, 1.0), (-99.0, math.exp(-15)), (99.0, math.exp(10))]
)
def test_a_posterior_has_means_then_limited_log_variances(logvar: float, std: float) -> None:
    mean = numbers(2, 3, 4, 4)
    posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, logvar)], 1))
    assert_bitwise_equal(posterior.mode(), mean)
    torch.testing.assert_close(posterior.std, torch.full_like(mean, std))
    torch.manual_seed(5)
    sample = posterior.sample()
    torch.manual_seed(5)
    assert_bitwise_equal(sample, mean + posterior.std * torch.randn(2, 3, 4, 4))
