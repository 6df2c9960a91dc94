"""How far each approximation is from what it stands for, measured on the embedded model."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from marfast.evaluation.classifier import load_classifier
from marfast.generation import Pipeline
from marfast.generation.load import load
from marfast.verifying.report import ApproximationRow

IMAGES = 200
"""As many of each class."""

EXACT: dict[str, Any] = {"sampler": "ddpm", "steps": 100}
"""What is approximated: the paper's sampler, at the model's other settings."""

APPROXIMATIONS: tuple[dict[str, Any], ...] = (
    {"steps": 50},
    {"steps": 25},
    {"steps": "50-5"},
    {"steps": 25, "num_iter": 3},
    {"steps": 100, "guidance_interval": (0.1, 0.8)},
    {"sampler": "ddim", "steps": 25},
    {"sampler": "dpm++2m", "steps": 10},
    {"sampler": "dpm++2m-sde", "steps": 10},
)


def rows(progress: Callable[[str, int, int], None]) -> tuple[ApproximationRow, ...]:
    """EXACT itself, with other random numbers, and every approximation with the same."""
    return tuple(_rows(progress))


def _rows(progress: Callable[[str, int, int], None]) -> Iterator[ApproximationRow]:
    model, judge = load("fashion-mnist"), load_classifier()
    labels = [label for label in range(10) for _ in range(IMAGES // 10)]
    exact = _images(model, labels, 0, EXACT)
    asked: list[tuple[str, int, dict[str, Any]]] = [
        ("exact", 0, EXACT),
        ("exact, other seeds", IMAGES, EXACT),
        *((_named(change), 0, EXACT | change) for change in APPROXIMATIONS),
    ]
    for done, (name, seed, settings) in enumerate(asked):
        progress(name, done, len(asked))
        images = exact if name == "exact" else _images(model, labels, seed, settings)
        off = (images - exact).double()
        seen = judge.judge(images).logits.argmax(1) == torch.tensor(labels)
        yield ApproximationRow(
            name,
            IMAGES,
            rms=float(off.square().mean().sqrt()),
            largest=float(off.abs().max()),
            accuracy=float(seen.double().mean()),
        )


def _images(model: Pipeline, labels: list[int], first: int, settings: dict[str, Any]) -> Tensor:
    seeds = [*range(first, first + len(labels))]
    return model.generate(labels=labels, seed=seeds, **settings)


def _named(change: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in change.items())
