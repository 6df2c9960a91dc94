"""Sequences of given lengths: each as by a model of that length."""

from typing import Any

import numpy as np
import pytest
import torch

from marfast.checkpoints import Settings
from marfast.errors import ArgumentError
from marfast.generation import Pipeline
from marfast.generation.sequences import generate_sequences
from marfast.model import FastMAR
from marfast.model.restricted import restricted
from marfast.ops import backend
from tests.models import SEQUENCE, tiny_pipeline, tiny_weights


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    module = SEQUENCE.build(steps="4", clip_denoised=True)
    module.load_state_dict(tiny_weights(SEQUENCE), assign=True)
    module.requires_grad_(False)
    return Pipeline(FastMAR(module), Settings(num_iter=9, steps=4, clip_denoised=True))


def test_they_are_what_the_reference_makes_at_that_length(pipeline: Pipeline) -> None:
    labels = [3, 0, 1]
    with backend("reference"):
        made = generate_sequences(pipeline, labels, 5, seed=7, num_iter=3, cfg=2.0)
    np.random.seed(7)
    torch.manual_seed(7)
    module = restricted(pipeline.model.module, 5)
    expected = module.sample_tokens(3, num_iter=3, cfg=2.0, labels=torch.tensor(labels))
    for own, image in zip(made, expected, strict=True):
        assert own.shape == (5, 3)
        assert torch.equal(own, image[:, 0].T)


def test_a_seed_each_makes_them_independent_of_the_others(pipeline: Pipeline) -> None:
    lengths, labels, seeds = [4, 9, 1, 4], [0, 1, 2, 3], [5, 6, 7, 8]
    with backend("reference"):
        made = generate_sequences(pipeline, labels, lengths, seed=seeds, part=1)
    assert [len(sequence) for sequence in made] == lengths
    for i in range(4):
        with backend("reference"):
            [alone] = generate_sequences(pipeline, [labels[i]], lengths[i], seed=[seeds[i]])
        assert torch.equal(alone, made[i])


def test_what_the_vectors_are_is_not_clamped() -> None:
    module = SEQUENCE.build(steps="4")
    module.load_state_dict(tiny_weights(SEQUENCE), assign=True)
    wild = Pipeline(FastMAR(module), Settings(num_iter=1, steps=4))
    assert not wild.makes_images
    [made] = generate_sequences(wild, [0], 9, seed=0)
    assert made.abs().max() > 1
    assert wild.generate([0], seed=0).shape == (1, 3, 1, 9)


def test_progress_counts_iterations(pipeline: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    generate_sequences(pipeline, [0, 0], [4, 9], seed=0, progress=lambda *now: told.append(now))
    assert told == [(4, 13), (13, 13)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lengths": [1]}, "lengths: 1 lengths for 2 labels"),
        ({"lengths": [1, 0]}, "lengths: 0; allowed are 1 to 9"),
        ({"lengths": [1, 10]}, "lengths: 10; allowed are 1 to 9"),
        ({"lengths": 2.5}, "lengths: 2.5; allowed are 1 to 9"),
        ({"labels": [0, 4]}, "labels: 4; allowed are 0 to 3"),
        ({"num_iter": 0}, "num_iter: 0; allowed"),
        ({"part": 0}, "part: 0; allowed"),
        ({"seed": [1]}, "seed: 1 seeds for 2 labels"),
    ],
)
def test_bad_arguments(pipeline: Pipeline, arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"labels": [0, 1], "lengths": 3} | arguments
    with pytest.raises(ArgumentError) as error:
        generate_sequences(pipeline, given.pop("labels"), given.pop("lengths"), **given)
    assert str(error.value).startswith(said)


def test_a_model_of_images_makes_none() -> None:
    with pytest.raises(ArgumentError, match="it makes images"):
        generate_sequences(tiny_pipeline(), [0], 3)
