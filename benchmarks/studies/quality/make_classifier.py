"""Makes the classifier: weights, statistics of real images, model card.

    python -m benchmarks.studies.quality.make_classifier           # ten minutes on two cores
    python -m benchmarks.studies.quality.make_classifier --keep    # only statistics and card anew

Needs the Fashion-MNIST data set (marfast.training.fashion_mnist).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.studies.quality.classifier_training import train_classifier
from marfast.evaluation.classifier import ASSETS, Classifier
from marfast.evaluation.frechet import fit_gaussian, frechet_distance
from marfast.evaluation.sums import MANIFOLD
from marfast.training.fashion_mnist import CLASS_NAMES, read_fashion_mnist, to_model_range

COUNTS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000)
MOST_SUBSETS = 20

CARD = """\
# fashion-mnist-classifier

The classifier by which marfast measures generated Fashion-MNIST images.

- **Input**: images [N, 1, 28, 28] in [-1, 1] (x / 127.5 - 1), background -1. **Output**: logits [N, 10] and 128 features.
- **Network**: three 3×3 convolutions with batch normalisation, ReLU and max pooling, 32–64–128 channels; a linear layer and ReLU give the features, another linear layer the logits. {parameters:,} parameters, float32.
- **Training**: the 60,000 training images of Fashion-MNIST (Zalando Research, MIT licence, arXiv 1708.07747), 12 epochs of batches of 100, AdamW, learning rate one cycle up to 4e-3, weight decay 0.02, each image randomly flipped and shifted by up to two pixels, seed 0 (`classifier_training.py`).
- **Accuracy on the 10,000 test images: {accuracy:.2%}**

| class | accuracy |
| --- | --- |
{classes}

`statistics.safetensors` holds mean and covariance (float64) of the features of the 10,000 test and the 60,000 training images, the features of 500 test images of each class (float16, for precision and recall), the accuracies above, and the mean Fréchet distance of n training images, equally many of each class, to the test images:

| n | Fréchet distance to the test images |
| --- | --- |
{distances}

The distance falls with n because few images estimate a covariance badly; compare only equal n. It is no FID: other features, other images.

Made by `python -m benchmarks.studies.quality.make_classifier`.
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the weights that are there")
    parser.add_argument("--data", type=Path, help="folder with the four .gz files")
    arguments = parser.parse_args()
    train, test = (read_fashion_mnist(split, arguments.data) for split in ("train", "test"))

    ASSETS.mkdir(parents=True, exist_ok=True)
    weights = ASSETS / "model.safetensors"
    if arguments.keep:
        classifier = Classifier().eval()
        classifier.load_state_dict(load_file(weights))
    else:
        classifier = train_classifier(
            to_model_range(train.images),
            torch.from_numpy(train.labels),
            progress=lambda epoch, loss: print(f"epoch {epoch + 1}: loss {loss:.4f}", flush=True),
        )
        save_file(classifier.state_dict(), weights)

    statistics = real_statistics(classifier, train, test)
    save_file(statistics, ASSETS / "statistics.safetensors")
    (ASSETS / "README.md").write_text(card(classifier, statistics))
    print(f"wrote {ASSETS}")


def real_statistics(classifier, train, test) -> dict[str, torch.Tensor]:
    """The tensors that `marfast.evaluation.real_images` describes."""
    train_features = classifier.judge(to_model_range(train.images)).features
    logits, test_features = classifier.judge(to_model_range(test.images))
    test_gaussian, train_gaussian = fit_gaussian(test_features), fit_gaussian(train_features)
    right = (logits.argmax(dim=1).numpy() == test.labels).astype(np.float64)
    distances = [
        np.mean(
            [
                frechet_distance(fit_gaussian(train_features[rows]), test_gaussian)
                for rows in balanced_subsets(train.labels, n)
            ]
        )
        for n in COUNTS
    ]
    return {
        "test_features": test_features[_first_of_each_class(test.labels)].half(),
        "test_mean": test_gaussian.mean,
        "test_covariance": test_gaussian.covariance,
        "train_mean": train_gaussian.mean,
        "train_covariance": train_gaussian.covariance,
        "test_accuracy": torch.tensor(
            [right[test.labels == label].mean() for label in range(len(CLASS_NAMES))],
            dtype=torch.float64,
        ),
        "counts": torch.tensor(COUNTS),
        "distances": torch.tensor(distances, dtype=torch.float64),
    }


def _first_of_each_class(labels: np.ndarray) -> np.ndarray:
    """The rows of `MANIFOLD` images, in the order of the data set."""
    share = MANIFOLD // len(CLASS_NAMES)
    rows = [np.flatnonzero(labels == label)[:share] for label in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(rows))


def balanced_subsets(labels: np.ndarray, n: int) -> list[np.ndarray]:
    """Disjoint random sets of n rows, equally many of each class: as many as there are, ≤ 20."""
    draws = np.random.default_rng(0)
    by_class = np.stack(
        [draws.permutation(np.flatnonzero(labels == label)) for label in range(len(CLASS_NAMES))]
    )  # [class, image]
    share = n // len(CLASS_NAMES)
    subsets = min(MOST_SUBSETS, by_class.shape[1] // share)
    return [by_class[:, i * share : (i + 1) * share].ravel() for i in range(subsets)]


def card(classifier: Classifier, statistics: dict[str, torch.Tensor]) -> str:
    per_class = statistics["test_accuracy"].tolist()
    distances = zip(COUNTS, statistics["distances"].tolist(), strict=True)
    return CARD.format(
        parameters=sum(parameter.numel() for parameter in classifier.parameters()),
        accuracy=float(np.mean(per_class)),
        classes="\n".join(
            f"| {name} | {share:.1%} |" for name, share in zip(CLASS_NAMES, per_class, strict=True)
        ),
        distances="\n".join(f"| {n:,} | {distance:.4f} |" for n, distance in distances),
    )


if __name__ == "__main__":
    main()
