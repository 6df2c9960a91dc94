"""A model of sequences restricted to shorter ones is a model of that length."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from marfast.errors import ArgumentError
from marfast.model.restricted import is_sequence, restricted
from marfast.reference import MAR
from marfast.verifying.case import fill
from tests.models import SEQUENCE, TINY

LENGTH = 5
TABLES = {
    "encoder_pos_embed_learned": SEQUENCE.buffer_size,
    "decoder_pos_embed_learned": SEQUENCE.buffer_size,
    "diffusion_pos_embed_learned": 0,
}


def whole() -> MAR:
    module: MAR = fill(SEQUENCE.module())
    return module.train()


def of_length(long: MAR, length: int) -> MAR:
    """A model of that many positions, built as one, with the long one's weights."""
    short = replace(SEQUENCE, img_size=length).module()
    weights = long.state_dict()
    for name, behind in TABLES.items():
        weights[name] = weights[name][:, : behind + length]
    short.load_state_dict(weights)
    return short.train()


def loss_of(module: MAR, x: Tensor) -> Tensor:
    np.random.seed(0)
    torch.manual_seed(0)
    loss: Tensor = module(x, torch.tensor([0, 3, 1]))
    return loss


def test_loss_and_gradients_are_those_of_a_model_of_that_length() -> None:
    long = whole()
    short = of_length(long, LENGTH)
    x = torch.randn(3, 3, 1, LENGTH)
    losses = [loss_of(restricted(long, LENGTH), x), loss_of(short, x)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    own = dict(long.named_parameters())
    for name, parameter in short.named_parameters():
        gradient = own[name].grad
        assert gradient is not None
        if name in TABLES:
            there = TABLES[name] + LENGTH
            assert not gradient[:, there:].any()
            gradient = gradient[:, :there]
        assert torch.equal(gradient, parameter.grad), name


def test_the_whole_length_is_the_module_itself() -> None:
    long = whole()
    assert restricted(long, SEQUENCE.seq_len) is long
    assert is_sequence(long)
    assert is_sequence(restricted(long, 2))
    assert not is_sequence(TINY.module())
    restricted(long, 2)
    assert long.seq_len == SEQUENCE.seq_len
    assert {*TABLES} <= {name for name, _ in long.named_parameters()}


@pytest.mark.parametrize("length", [0, 10])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ArgumentError, match=f"lengths: {length}; allowed are 1 to 9"):
        restricted(whole(), length)
