"""The original's groups, schedule and averages."""

import pytest
import torch
from torch import nn

from marfast.training.objective import build
from marfast.training.optimisation import Average, is_decayed, learning_rate, make_optimizer
from tests.models import TINY
from tests.training.runs import QUICK


def test_the_groups_are_the_originals() -> None:
    module = build(TINY, QUICK)
    optimizer = make_optimizer(module, QUICK)
    decayed = {name for name, p in module.named_parameters() if is_decayed(name, p)}
    assert {"class_emb.weight", "fake_latent", "mask_token", "z_proj.weight"} <= decayed
    assert "encoder_pos_embed_learned" in decayed
    assert "decoder_blocks.0.attn.qkv.weight" in decayed
    assert not any("diffloss" in name or name.endswith(".bias") for name in decayed)
    assert "encoder_norm.weight" not in decayed
    plain, group = optimizer.param_groups
    assert (plain["weight_decay"], group["weight_decay"]) == (0.0, 0.02)
    assert len(group["params"]) == len(decayed)
    assert len(plain["params"]) + len(decayed) == len([*module.parameters()])


def test_the_learning_rate() -> None:
    constant = QUICK.replace(lr=0.4, warmup=2, epochs=10)
    assert [learning_rate(constant, epoch) for epoch in (0, 1, 2, 9)] == [0, 0.2, 0.4, 0.4]
    cosine = constant.replace(schedule="cosine", min_lr=0.1)
    rates = [learning_rate(cosine, epoch) for epoch in (1, 2, 6, 10, 11)]
    assert rates == pytest.approx([0.2, 0.4, 0.25, 0.1, 0.1])
    assert learning_rate(QUICK.replace(warmup=0), 0) == QUICK.lr


@pytest.mark.parametrize("warmup", [False, True])
def test_an_average(warmup: bool) -> None:
    module = nn.Linear(2, 2)
    average = Average(module, 0.9, warmup)
    expected = module.weight.detach().clone()
    for n in range(30):
        with torch.no_grad():
            module.weight.add_(1.0)
        average.update(module, n)
        rate = min(0.9, (1 + n) / (10 + n)) if warmup else 0.9
        expected = rate * expected + (1 - rate) * module.weight.detach()
    assert average.weights["weight"].tolist() == [pytest.approx(row) for row in expected.tolist()]
