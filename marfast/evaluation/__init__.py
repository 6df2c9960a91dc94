"""Quality of generated Fashion-MNIST images, beside real ones."""

from marfast.evaluation.classifier import Classifier, Judgement, load_classifier
from marfast.evaluation.classifier_training import train_classifier
from marfast.evaluation.fashion_mnist import (
    CLASS_NAMES,
    LabelledImages,
    read_fashion_mnist,
    to_model_range,
)
from marfast.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance
from marfast.evaluation.quality import (
    Quality,
    RealImages,
    evaluate_images,
    real_accuracy,
    real_frechet_distance,
    real_images,
)

__all__ = [
    "CLASS_NAMES",
    "Classifier",
    "Gaussian",
    "Judgement",
    "LabelledImages",
    "Quality",
    "RealImages",
    "evaluate_images",
    "fit_gaussian",
    "frechet_distance",
    "load_classifier",
    "read_fashion_mnist",
    "real_accuracy",
    "real_frechet_distance",
    "real_images",
    "to_model_range",
    "train_classifier",
]
