"""The trained classifier, its stored statistics, and the measure built on both."""

import math

import pytest
import torch

from benchmarks.studies.quality.measure import evaluate_images
from marfast.evaluation.classifier import load_classifier
from marfast.evaluation.frechet import frechet_distance
from marfast.evaluation.real_images import real_images
from marfast.training.fashion_mnist import CLASS_NAMES, read_fashion_mnist, to_model_range

LEAST_ACCURACY = 0.925  # of the classifier on the real test images


def noise(n: int) -> torch.Tensor:
    return 2 * torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 1


def dataset(split):
    try:
        images, labels = read_fashion_mnist(split)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return to_model_range(images), torch.from_numpy(labels).long()


def test_stored_statistics_are_covariances():
    real = real_images()
    for mean, covariance in (real.test, real.train):
        assert mean.shape == (128,)
        assert covariance.shape == (128, 128)
        assert mean.dtype == covariance.dtype == torch.float64
        torch.testing.assert_close(covariance, covariance.T)
        assert torch.linalg.eigvalsh(covariance).min() > -1e-10
    assert real.test_accuracy.shape == (10,)
    assert real_images().accuracy >= LEAST_ACCURACY


def test_recorded_distance_is_that_of_the_stored_statistics():
    real = real_images()
    assert real.counts[-1] == 60_000
    recorded = float(real.distances[-1])
    assert frechet_distance(real.train, real.test) == pytest.approx(recorded, rel=1e-8)


def test_real_images_distance_falls_with_their_number():
    real = real_images()
    for n, distance in zip(real.counts.tolist(), real.distances.tolist(), strict=True):
        assert real_images().distance(n) == pytest.approx(distance)
    falling = [real_images().distance(n) for n in (100, 150, 300, 1_000, 3_000, 10_000)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("n", [0, 99, 60_001])
def test_real_images_distance_is_known_in_a_range(n):
    with pytest.raises(ValueError, match="100 to 60000"):
        real_images().distance(n)


def test_noise_is_neither_recognised_nor_near():
    n = 1_000
    quality = evaluate_images(noise(n), [i % 10 for i in range(n)])
    assert quality.n == n
    assert quality.accuracy < 0.2
    assert quality.frechet_distance > 10 * real_images().distance(n)
    assert list(quality.per_class_accuracy) == list(CLASS_NAMES)
    mean = sum(quality.per_class_accuracy.values()) / 10
    assert mean == pytest.approx(quality.accuracy)


def test_a_class_without_images_has_no_accuracy():
    quality = evaluate_images(noise(4), torch.tensor([3, 3, 8, 8]))
    assert set(quality.per_class_accuracy) == {"dress", "bag"}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (noise(3), [0, 1], "labels for"),
        (noise(1), [0], "labels for"),
        (noise(2), [0, 10], "from 0 to 9"),
        (noise(2), [-1, 0], "from 0 to 9"),
        (noise(2), [0.0, 1.0], "from 0 to 9"),
        (noise(2)[:, 0], [0, 1], "shape"),
        (noise(2).repeat(1, 3, 1, 1), [0, 1], "shape"),
        (noise(2) * 127.5, [0, 1], r"outside \[-1, 1\]"),
        (noise(2) * math.nan, [0, 1], r"outside \[-1, 1\]"),
    ],
)
def test_bad_input_is_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate_images(images, labels)


def test_judging_does_not_depend_on_the_batch():
    classifier, images = load_classifier(), noise(7)
    whole, single = classifier.judge(images), classifier.judge(images, batch=1)
    torch.testing.assert_close(whole.features, single.features)
    torch.testing.assert_close(whole.logits, single.logits)
    assert whole.logits.shape == (7, 10)
    assert whole.features.shape == (7, 128)


def test_real_test_images_give_the_recorded_figures():
    images, labels = dataset("test")
    quality = evaluate_images(images, labels)
    assert quality.accuracy == pytest.approx(real_images().accuracy, abs=5e-4)
    assert quality.frechet_distance < 1e-6
    recorded = dict(zip(CLASS_NAMES, real_images().test_accuracy.tolist(), strict=True))
    assert quality.per_class_accuracy == pytest.approx(recorded, abs=5e-3)


def test_real_training_images_are_as_near_as_recorded():
    images, labels = dataset("train")
    rows = torch.cat([torch.nonzero(labels == label)[:100, 0] for label in range(10)])
    quality = evaluate_images(images[rows], labels[rows])
    assert quality.frechet_distance == pytest.approx(real_images().distance(1_000), rel=0.2)
