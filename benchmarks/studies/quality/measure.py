"""Quality of generated Fashion-MNIST images: do they show what was asked, and look like the rest.

Accuracy is how often the classifier sees the intended label. The Fréchet distance, in the
classifier's features, is taken to the 10,000 test images; their statistics are stored beside the
classifier, so measuring needs no data set.

The Fréchet distance is biased: the fewer images, the larger, by about a constant over their
number. Compare only figures from equal numbers of images, and read each beside what that many
real images get (`real_frechet_distance`): training images, beside the same test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.studies.quality.classifier import ASSETS, Classifier, load_classifier
from benchmarks.studies.quality.fashion_mnist import CLASS_NAMES
from benchmarks.studies.quality.frechet import Gaussian, fit_gaussian, frechet_distance


@dataclass(frozen=True)
class Quality:
    """What was measured on ``n`` images.

    ``accuracy`` and ``per_class_accuracy`` (a class that no label names has no entry) are shares
    from 0 to 1; ``frechet_distance`` is in squared feature units, 0 or more.
    """

    accuracy: float
    per_class_accuracy: dict[str, float]
    frechet_distance: float
    n: int


@dataclass(frozen=True)
class RealImages:
    """What is stored about real images.

    ``test`` and ``train``: the features of the 10,000 test and the 60,000 training images.
    ``test_accuracy`` [10]: the classifier's accuracy on the test images of each class.
    ``counts`` [K], ascending, and ``distances`` [K]: mean Fréchet distance of that many training
    images, equally many of each class, to the test images.
    """

    test: Gaussian
    train: Gaussian
    test_accuracy: torch.Tensor
    counts: torch.Tensor
    distances: torch.Tensor


def evaluate_images(images: torch.Tensor, labels: Sequence[int] | torch.Tensor) -> Quality:
    """The quality of images [N, 1, 28, 28] in [-1, 1] made for labels [N] in 0–9; N ≥ 2.

    Raises ValueError for other shapes, values or labels.
    """
    intended = torch.as_tensor(labels)
    if intended.shape != images.shape[:1] or len(intended) < 2:
        raise ValueError(f"{tuple(intended.shape)} labels for {tuple(images.shape)} images")
    if intended.is_floating_point() or not ((intended >= 0) & (intended < len(CLASS_NAMES))).all():
        raise ValueError("labels must be whole numbers from 0 to 9")
    logits, features = _classifier().judge(images.cpu())
    right = logits.argmax(dim=1) == intended.cpu()
    return Quality(
        accuracy=float(right.double().mean()),
        per_class_accuracy={
            name: float(right[of_class].double().mean())
            for label, name in enumerate(CLASS_NAMES)
            if (of_class := intended.cpu() == label).any()
        },
        frechet_distance=frechet_distance(fit_gaussian(features), real_images().test),
        n=len(images),
    )


def real_frechet_distance(n: int) -> float:
    """The Fréchet distance that n real images get, from 100 to 60,000: what to compare with.

    Measured at some counts, between them interpolated in 1/n, which the bias follows.
    """
    real = real_images()
    counts = real.counts.numpy()
    if not counts[0] <= n <= counts[-1]:
        raise ValueError(f"n is {n}; real images were measured from {counts[0]} to {counts[-1]}")
    return float(np.interp(-1 / n, -1 / counts, real.distances.numpy()))


def real_accuracy() -> float:
    """The classifier's accuracy on the 10,000 test images, a share from 0 to 1."""
    return float(real_images().test_accuracy.mean())


@cache
def real_images(file: Path = ASSETS / "statistics.safetensors") -> RealImages:
    """The stored statistics of the real images, float64."""
    stored = load_file(file)
    return RealImages(
        test=Gaussian(stored["test_mean"], stored["test_covariance"]),
        train=Gaussian(stored["train_mean"], stored["train_covariance"]),
        test_accuracy=stored["test_accuracy"],
        counts=stored["counts"],
        distances=stored["distances"],
    )


@cache
def _classifier() -> Classifier:
    return load_classifier()
