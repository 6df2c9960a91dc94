"""Quality of generated Fashion-MNIST images: do they show what was asked, and look like the rest.

Accuracy is how often the classifier sees the intended label. The Fréchet distance, in the
classifier's features, is taken to the 10,000 test images; their statistics are stored beside the
classifier, so measuring needs no data set.

The Fréchet distance is biased: the fewer images, the larger, by about a constant over their
number. Compare only figures from equal numbers of images, and read each beside what that many
real images get (`RealImages.distance`): training images, beside the same test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from marfast.evaluation.classifier import Classifier, load_classifier
from marfast.evaluation.frechet import fit_gaussian, frechet_distance
from marfast.evaluation.real_images import real_images
from marfast.training.fashion_mnist import CLASS_NAMES


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


@cache
def _classifier() -> Classifier:
    return load_classifier()
