"""Fréchet distance between two sets of feature vectors, each taken for a Gaussian.

d² = |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½   (Dowson and Landau 1982)

The last trace is the sum of the singular values of Σ₁^½ Σ₂^½, with each root from a symmetric
eigen-decomposition. Eigenvalues that are rounding errors count as 0 before roots are taken, so
singular covariances (fewer images than features, features that are always 0) lose no accuracy. All
in float64.

The distance falls as the sample grows, also between sets from one distribution: compare only
distances measured with equal numbers of images.
"""

from typing import NamedTuple

import torch


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D] of feature vectors, float64."""

    mean: torch.Tensor
    covariance: torch.Tensor


def fit_gaussian(features: torch.Tensor) -> Gaussian:
    """Mean and unbiased covariance of features [N, D]. Raises ValueError if N < 2."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have shape {tuple(features.shape)}; expected [N, D], N ≥ 2")
    values = features.double()
    mean = values.mean(dim=0)
    centred = values - mean
    return Gaussian(mean, centred.T @ centred / (len(values) - 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """d², as the formula above has it; 0 for equal Gaussians, up to rounding.

    Raises ValueError if the sizes differ or a value is not finite.
    """
    for gaussian in (first, second):
        mean, covariance = gaussian
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mean {tuple(mean.shape)}, covariance {tuple(covariance.shape)}")
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("a mean or covariance holds values that are not finite")
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"{len(first.mean)} features beside {len(second.mean)}")
    shift = (first.mean.double() - second.mean.double()).square().sum()
    roots = _square_root(first.covariance) @ _square_root(second.covariance)
    overlap = torch.linalg.svdvals(roots).sum()
    spread = first.covariance.double().trace() + second.covariance.double().trace()
    return max(0.0, float(shift + spread - 2 * overlap))


def _square_root(covariance: torch.Tensor) -> torch.Tensor:
    """The symmetric root [D, D] of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(covariance.double())
    rounding = len(values) * torch.finfo(torch.float64).eps * values.abs().max()
    root: torch.Tensor = (vectors * values.where(values > rounding, 0).sqrt()) @ vectors.T
    return root
