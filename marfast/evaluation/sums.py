"""What images add to a measure, summed in float64: sums of parts are added in any order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marfast.evaluation.classifier import Judgement
from marfast.evaluation.frechet import Gaussian

MANIFOLD = 5_000
"""How many images, those of the least ids, precision and recall are taken from."""


@dataclass(frozen=True)
class Sums:
    """Over n images, float64. D features, C classes that the judge tells apart."""

    count: Tensor
    """[]: n."""
    first: Tensor
    """[D]: Σ f."""
    second: Tensor
    """[D, D]: Σ f fᵀ."""
    right: Tensor
    """[]: how many are seen as what they were made for."""
    shares: Tensor
    """[C]: Σ p."""
    information: Tensor
    """[]: Σ Σ_c p_c ln p_c."""

    @classmethod
    def of(cls, judged: Judgement, labels: Sequence[int]) -> "Sums":
        """Of images [n] that were made for these classes."""
        f, logits = judged.features.double(), judged.logits.double()
        p, seen = logits.softmax(1), logits.argmax(1)
        return cls(
            torch.tensor(float(len(f)), dtype=torch.float64),
            f.sum(0),
            f.T @ f,
            (seen == torch.as_tensor(labels)).double().sum(),
            p.sum(0),
            (p * logits.log_softmax(1)).sum(),
        )

    def __add__(self, other: "Sums") -> "Sums":
        return self._with(other, torch.add)

    def __sub__(self, other: "Sums") -> "Sums":
        """Without a part of them."""
        return self._with(other, torch.sub)

    def _with(self, other: "Sums", do: Callable[[Tensor, Tensor], Tensor]) -> "Sums":
        names = [field.name for field in fields(self)]
        return Sums(**{name: do(getattr(self, name), getattr(other, name)) for name in names})

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance of the features; n is 2 or more."""
        mean = self.first / self.count
        return Gaussian(mean, (self.second - self.count * mean.outer(mean)) / (self.count - 1))

    def accuracy(self) -> float:
        return float(self.right / self.count)

    def inception_score(self) -> float:
        """exp of the mean KL divergence between p and its mean over these images."""
        mean = self.shares / self.count
        entropy = torch.special.entr(mean).sum()
        return float((self.information / self.count + entropy).exp())


def total(parts: Iterable[Sums]) -> Sums:
    """Of one or more parts."""
    return reduce(Sums.__add__, parts)


@dataclass(frozen=True)
class Judged:
    """A part of the images: its sums, and the features [m, D] of those that are in the manifold."""

    sums: Sums
    features: Tensor

    @classmethod
    def of(cls, judged: Judgement, ids: range, labels: Sequence[int]) -> "Judged":
        kept = len(range(ids.start, min(ids.stop, MANIFOLD)))
        return cls(Sums.of(judged, labels), judged.features[:kept].float().clone())

    def save(self, file: Path) -> None:
        save_file(vars(self.sums) | {"features": self.features}, file)

    @classmethod
    def load(cls, file: Path) -> "Judged":
        """ValueError names the file."""
        try:
            stored = load_file(file)
            return cls(features=stored.pop("features"), sums=Sums(**stored))
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: no statistics of images ({error})") from None
