"""What is stored about Fashion-MNIST's images, so that measuring needs no data set."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from marfast.evaluation.classifier import ASSETS
from marfast.evaluation.frechet import Gaussian
from marfast.evaluation.reference import Reference


@dataclass(frozen=True)
class RealImages:
    """In the features of the embedded classifier.

    `test` and `train`: of the 10,000 test and the 60,000 training images.
    `test_features` [5,000, D]: of test images, equally many of each class.
    `test_accuracy` [10]: the classifier's accuracy on the test images of each class.
    `counts` [K], ascending, and `distances` [K]: mean Fréchet distance of that many training
    images, equally many of each class, to the test images.
    """

    test: Gaussian
    train: Gaussian
    test_features: Tensor
    test_accuracy: Tensor
    counts: Tensor
    distances: Tensor

    @property
    def accuracy(self) -> float:
        """On all test images, a share from 0 to 1."""
        return float(self.test_accuracy.mean())

    def distance(self, n: int) -> float:
        """The Fréchet distance that n real images get, from 100 to 60,000: what to compare with.

        Measured at some counts, between them interpolated in 1/n, which the bias follows.
        """
        counts = self.counts.numpy()
        if not counts[0] <= n <= counts[-1]:
            raise ValueError(
                f"n is {n}; real images were measured from {counts[0]} to {counts[-1]}"
            )
        return float(np.interp(-1 / n, -1 / counts, self.distances.numpy()))

    def reference(self) -> Reference:
        """The test images."""
        return Reference("Fashion-MNIST's test images", self.test, self.test_features.float())


@cache
def real_images(file: Path = ASSETS / "statistics.safetensors") -> RealImages:
    """The stored statistics of Fashion-MNIST."""
    stored = load_file(file)
    return RealImages(
        Gaussian(stored["test_mean"], stored["test_covariance"]),
        Gaussian(stored["train_mean"], stored["train_covariance"]),
        *(stored[name] for name in ("test_features", "test_accuracy", "counts", "distances")),
    )
