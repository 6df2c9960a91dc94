"""Fréchet distance: against closed forms, and on degenerate input."""

import math

import pytest
import torch

from marfast.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance


def rotated(variances: torch.Tensor, seed: int) -> torch.Tensor:
    """A covariance with these eigenvalues in random directions; one seed, one set of directions."""
    draws = torch.Generator().manual_seed(seed)
    size = len(variances)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=draws, dtype=torch.float64))
    return (basis * variances) @ basis.T


def features(n: int, size: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [2, 50, 1000])  # fewer images than features: singular covariance
def test_equal_sets_are_at_distance_zero(n):
    gaussian = fit_gaussian(features(n))
    assert frechet_distance(gaussian, gaussian) == pytest.approx(0, abs=1e-10)


def test_a_shift_of_the_mean_is_its_square():
    gaussian = fit_gaussian(features(500))
    shift = torch.linspace(-1, 2, 128, dtype=torch.float64)
    moved = Gaussian(gaussian.mean + shift, gaussian.covariance)
    expected = float(shift.square().sum())
    assert frechet_distance(gaussian, moved) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", [None, 0])  # along the axes, and in shared random directions
def test_commuting_covariances_have_the_closed_form(seed):
    first = torch.linspace(0, 9, 64, dtype=torch.float64)
    second = torch.linspace(4, 0, 64, dtype=torch.float64)
    expected = float((first.sqrt() - second.sqrt()).square().sum())
    mean = torch.zeros(64, dtype=torch.float64)
    one, other = (
        Gaussian(mean, variances.diag() if seed is None else rotated(variances, seed))
        for variances in (first, second)
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-7)


def test_general_covariances_in_two_dimensions_have_the_closed_form():
    # tr (√A B √A)^½ = √(tr AB + 2 √(det A det B)) for 2×2 matrices
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    overlap = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float(torch.det(a) * torch.det(b))))
    expected = float(a.trace() + b.trace()) - 2 * overlap
    mean = torch.zeros(2, dtype=torch.float64)
    assert frechet_distance(Gaussian(mean, a), Gaussian(mean, b)) == pytest.approx(expected)


def test_distance_is_symmetric_and_float64():
    one, other = fit_gaussian(features(300)), fit_gaussian(2 * features(400, seed=1) + 0.5)
    assert one.mean.dtype == one.covariance.dtype == torch.float64
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-10)


def test_fit_gaussian_is_the_unbiased_estimate():
    values = features(30, size=5)
    gaussian = fit_gaussian(values)
    torch.testing.assert_close(gaussian.mean, values.double().mean(0))
    torch.testing.assert_close(gaussian.covariance, torch.cov(values.double().T))


def test_fewer_images_lie_farther_away():
    whole = fit_gaussian(features(5000))
    distances = [
        frechet_distance(fit_gaussian(features(n, seed=1)), whole) for n in (100, 400, 1600)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0.1


@pytest.mark.parametrize("shape", [(1, 128), (0, 128), (10,), (2, 3, 4)])
def test_too_few_features_are_refused(shape):
    with pytest.raises(ValueError, match="N ≥ 2"):
        fit_gaussian(torch.zeros(shape))


def test_unequal_sizes_and_bad_values_are_refused():
    small, large = fit_gaussian(features(10, 3)), fit_gaussian(features(10, 4))
    with pytest.raises(ValueError, match="3 features beside 4"):
        frechet_distance(small, large)
    with pytest.raises(ValueError, match="covariance"):
        frechet_distance(small, Gaussian(small.mean, large.covariance))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(small, Gaussian(small.mean * math.nan, small.covariance))
