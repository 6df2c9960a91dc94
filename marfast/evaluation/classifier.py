"""The classifier that judges generated Fashion-MNIST images, and gives the features for it.

Three 3×3 convolutions with batch normalisation and pooling, 32–64–128 channels at 28, 14 and 7
pixels, a linear layer to the 128 features (after ReLU), and one to the classes: 242,000 parameters.
"""

from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

CLASSES = 10
IMAGE_SIZE = 28
FEATURES = 128
ASSETS = Path(str(resources.files("marfast") / "assets")) / "fashion-mnist-classifier"


class Judgement(NamedTuple):
    """What a judge sees in N images: logits [N, C] of what they show, and features [N, D]."""

    logits: torch.Tensor
    features: torch.Tensor


class Classifier(nn.Module):
    """A small CNN over images [N, 1, 28, 28] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_block(1, 32), *_block(32, 64), *_block(64, 128))
        self.features = nn.Linear(128 * 3 * 3, FEATURES)
        self.classes = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: torch.Tensor) -> Judgement:
        features = self.features(self.blocks(images).flatten(1)).relu()
        return Judgement(self.classes(features), features)

    @torch.no_grad()
    def judge(self, images: torch.Tensor, batch: int = 500) -> Judgement:
        """Logits [N, 10] and features [N, 128], float32, of images [N, 1, 28, 28] in [-1, 1],
        ``batch`` at a time.

        Raises ValueError for another shape, no image, or values that are not finite.
        """
        check_images(images)
        parts = [self(chunk.float()) for chunk in images.split(batch)]
        return Judgement(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def check_images(images: torch.Tensor) -> None:
    """Raises ValueError unless the images are [N, 1, 28, 28] with N ≥ 1, finite, in [-1, 1]."""
    if images.ndim != 4 or images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE) or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected [N, 1, 28, 28], N ≥ 1")
    if not bool((images.abs() <= 1).all()):  # false for NaN too
        raise ValueError("images hold values outside [-1, 1]")


def load_classifier(folder: Path = ASSETS) -> Classifier:
    """The trained classifier, in evaluation mode on the CPU."""
    classifier = Classifier()
    classifier.load_state_dict(load_file(folder / "model.safetensors"))
    return classifier.eval()


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
