"""Who looks at images: networks that give features, and what they see."""

import pickle
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from marfast.checkpoints.pth import check_torch
from marfast.checkpoints.weights_hash import weights_hash
from marfast.errors import ArgumentError, MissingFile
from marfast.evaluation.classifier import IMAGE_SIZE, Judgement, load_classifier
from marfast.pixels import Pixels

BATCH = 100
"""Images that a judge looks at at a time."""


_UNREADABLE = (
    *(OSError, ValueError, RuntimeError, AttributeError, EOFError, TypeError),
    pickle.UnpicklingError,
)
"""What torch and torch-fidelity raise for files of another kind."""


class Judge(Protocol):
    """`weights` is their hash; `labels` says whether its classes are those of the model."""

    name: str
    labels: bool

    @property
    def weights(self) -> str: ...

    def check(self, side: int, channels: int) -> None:
        """ArgumentError for images that it can't look at."""

    def __call__(self, pixels: Pixels) -> Judgement:
        """Of images [N, H, W, C]."""


class FashionClassifier:
    """The embedded classifier of Fashion-MNIST: 128 features, 10 classes."""

    name = "fashion-mnist-classifier"
    labels = True

    @cached_property
    def network(self) -> Any:
        return load_classifier()

    @cached_property
    def weights(self) -> str:
        return weights_hash(self.network.state_dict())

    def check(self, side: int, channels: int) -> None:
        if (side, channels) != (IMAGE_SIZE, 1):
            given = f"images of {side} × {side} × {channels}"
            raise ArgumentError("protocol", given, "fashion-mnist's are 28 × 28 × 1")

    def __call__(self, pixels: Pixels) -> Judgement:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        seen: Judgement = self.network.judge(images.clamp_(-1, 1), BATCH)
        return seen


class Inception:
    """torch-fidelity's Inception v3: 2,048 features; its weights are in a file, and never fetched.

    Raises ArgumentError, naming `inception`, for what is no such file, and ImportError with what to
    install.
    """

    name = "torch-fidelity-inception-v3"
    labels = False

    def __init__(self, file: str | Path, device: str | torch.device = "cpu"):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (
            ImportError,
            RuntimeError,
        ) as error:  # the latter from a torchvision of another torch
            raise ImportError(
                f"Inception needs torch-fidelity: pip install torch-fidelity ({error})"
            ) from None
        if not Path(file).is_file():
            raise MissingFile("inception", f"{file}: no such file")
        try:
            check_torch("weights of Inception come as a pickle only")
            state = torch.load(file, map_location="cpu", weights_only=True)
            self.weights = weights_hash(state)
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], str(file)
            ).to(device)
        except _UNREADABLE as error:
            said = str(error).partition("\n")[0]
            raise ArgumentError(
                "inception", f"{file}: not torch-fidelity's Inception ({said})"
            ) from None
        self.device = device

    def check(self, side: int, channels: int) -> None:
        if channels not in (1, 3):
            raise ArgumentError("protocol", f"images of {channels} channels", "allowed are 1 or 3")

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Judgement:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = images.expand(-1, 3, -1, -1).contiguous()
        parts = [self.network(part.to(self.device)) for part in images.split(BATCH)]
        features, logits = (torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
        return Judgement(logits, features)
