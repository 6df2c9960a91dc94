"""One step: parts, processes, the loss of sequences, what is not finite."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import marfast
from marfast.errors import ArgumentError
from marfast.evaluation.work import Place
from marfast.model import loss
from marfast.ops import choice
from marfast.reference import MAR
from marfast.training.data import Batch
from marfast.training.objective import Objective, build
from marfast.training.saved import Plan
from marfast.training.trainer import Trainer, parts_of
from marfast.training.training import NotFinite
from marfast.verifying.case import fill
from tests.cli.program import ROOT, start
from tests.helpers import assert_as_accurate
from tests.limits import HANG
from tests.models import SEQUENCE, TINY
from tests.training.runs import QUICK, RARELY, assert_same_state, go, images, preset, state_of


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by torchrun")
def test_two_processes_are_one_that_computes_both_parts(tmp_path: Path) -> None:
    """To the last bit: gradients, and so all that follows from them."""
    process = start(
        *("--nproc-per-node=2", "-m", "tests.training.ranks", str(tmp_path / "two")),
        cwd=ROOT,
        program=("-m", "torch.distributed.run"),
    )
    go(tmp_path / "one", settings=QUICK.replace(parts=2), session=RARELY)
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 0, stderr
    assert_same_state(tmp_path / "one", tmp_path / "two")
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    assert [row.split(",")[:5] for row in logs[0]] == [row.split(",")[:5] for row in logs[1]]


LABELS = torch.tensor([3, 1])


class Draws:
    """What parts of a batch draw, kept; and put together for the whole batch."""

    def __init__(self) -> None:
        self.orders: list[Tensor] = []
        self.head: list[tuple[Tensor, Tensor]] = []

    def keep(self, module: MAR, patch: pytest.MonkeyPatch) -> None:
        own_orders, own_draw = module.sample_orders, loss.draw

        def sample_orders(bsz: int) -> Tensor:
            self.orders.append(own_orders(bsz))
            return self.orders[-1]

        def draw(*given: Any) -> tuple[Tensor, Tensor]:
            self.head.append(own_draw(*given))
            return self.head[-1]

        patch.setattr(module, "sample_orders", sample_orders)
        patch.setattr(loss, "draw", draw)

    def replay(self, module: MAR, patch: pytest.MonkeyPatch, together: bool) -> None:
        orders, head = iter(self.orders), iter(self.head)

        def sample_orders(bsz: int) -> Tensor:
            return torch.cat(self.orders) if together else next(orders)

        def draw(diffloss: Any, target: Tensor, copies: int) -> tuple[Tensor, Tensor]:
            if together:  # of each timestep's copy, the rows of all parts
                of_parts = [[of.unflatten(0, (copies, -1)) for of in part] for part in self.head]
                t, noise = (torch.cat(of, 1).flatten(0, 1) for of in zip(*of_parts, strict=True))
            else:
                t, noise = next(head)
            return t, noise.to(target.dtype)

        patch.setattr(module, "sample_orders", sample_orders)
        patch.setattr(loss, "draw", draw)


def test_parts_are_as_accurate_as_one_batch_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of two parts' gradients is that of twice the batch with the same random numbers."""
    monkeypatch.setattr(marfast.reference.mar, "mask_ratio", lambda _: 0.8)  # of both parts
    settings = QUICK.replace(dropout=0.0, label_drop=0.0)
    cases = []
    for seed in range(8):
        module: MAR = fill(build(TINY, settings), seed=seed)
        x = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        weights = [p.detach() for p in module.parameters()]
        cases.append((x, *weights))
    names = [name for name, _ in module.named_parameters()]
    labels = torch.arange(6)
    draws = Draws()
    draws.keep(module, monkeypatch)
    for part in (slice(0, 3), slice(3, 6)):
        module(x[part], labels[part])

    def gradients(parts: Sequence[slice], x: Tensor, *weights: Tensor) -> Tensor:
        leaves = [weight.detach().requires_grad_() for weight in weights]
        draws.replay(module, monkeypatch, together=len(parts) == 1)
        losses = [
            functional_call(module, dict(zip(names, leaves, strict=True)), (x[part], labels[part]))
            for part in parts
        ]
        found = torch.autograd.grad(torch.stack(losses).mean(), leaves)
        return torch.cat([gradient.flatten() for gradient in found])

    assert_as_accurate(
        lambda *given: gradients([slice(0, 3), slice(3, 6)], *given),
        lambda *given: gradients([slice(0, 6)], *given),
        cases,
    )


@pytest.mark.parametrize("mul", [1, 2])
def test_the_loss_is_the_lean_one_of_the_same_draws(mul: int) -> None:
    """By the reference's backend, the module's own to the bit."""
    settings = QUICK.replace(mul=mul)
    own, ours = (fill(build(TINY, settings)) for _ in range(2))
    own.__class__ = MAR
    losses, states = [], []
    for module in (own, ours):
        np.random.seed(0)
        torch.manual_seed(0)
        with choice.used() as used, marfast.backend("reference"):
            objective = Objective(module, settings)
            losses.append(objective(torch.linspace(-1, 1, 512).view(2, 1, 16, 16), LABELS))
            losses[-1].backward()
        states.append(torch.get_rng_state())
        assert ("diffusion_loss" in used) == (module is ours)
    assert torch.equal(*states)
    assert torch.equal(*losses)
    for mine, theirs in zip(ours.parameters(), own.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_what_lies_behind_a_sequences_end_has_no_influence() -> None:
    settings = QUICK.replace(dropout=0.1)
    objective = Objective(fill(build(SEQUENCE, settings)), settings)
    x, labels, lengths = torch.randn(5, 3, 1, 9), torch.arange(5) % 4, [4, 9, 1, 4, 2]
    found = []
    for behind in (0.0, math.nan):
        given = x.clone()
        for i, length in enumerate(lengths):
            given[i, ..., length:] = behind
        np.random.seed(0)
        torch.manual_seed(0)
        objective.zero_grad()
        loss = objective(given, labels, lengths)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in objective.parameters())])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


def trainer(**changes: Any) -> Trainer:
    settings = QUICK.replace(**changes)
    return Trainer(
        Plan(preset(), settings, images().facts), images(), 5, torch.device("cpu"), Place()
    )


def batch(value: float = 0.5) -> list[Batch]:
    return [Batch(torch.full((8, 1, 16, 16), value), torch.arange(8), None)]


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    run = trainer()
    assert run.step(batch()).good
    assert run.step(batch()).good
    names = [name for name, _ in run.module.named_parameters()]
    before = [p.detach().clone() for p in run.module.parameters()]
    averages = [{k: v.clone() for k, v in average.weights.items()} for average in run.averages]
    step = run.step(batch(math.nan))
    assert not step.good
    assert math.isnan(step.loss)
    assert (run.counts.step, run.counts.updates, run.counts.skipped) == (3, 2, 1)
    for name, old, new in zip(names, before, run.module.parameters(), strict=True):
        assert torch.equal(old, new), name
    for old, average in zip(averages, run.averages, strict=True):
        assert all(torch.equal(old[name], average.weights[name]) for name in names)
    assert run.step(batch()).good


def test_three_in_a_row_end_the_run_with_the_weights_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Objective.forward, []

    def forward(self: Objective, *given: Any) -> Tensor:
        seen.append(1)
        loss = original(self, *given)
        return loss * math.nan if len(seen) in (2, 6, 7, 8) else loss

    monkeypatch.setattr(Objective, "forward", forward)
    said = r"3 steps in a row, the last of which is step 8; .*last has the weights before them"
    with pytest.raises(NotFinite, match=said):
        go(tmp_path / "bad", session=RARELY)
    state = state_of(tmp_path / "bad")
    counts = state["state.json"]
    assert (counts["step"], counts["updates"]) == (8, 4)
    weights = [value for value in state.values() if isinstance(value, Tensor)]
    assert all(value.isfinite().all() for value in weights if value.is_floating_point())
    assert go(tmp_path / "bad", session=RARELY, resume=True).finished  # behind them


@pytest.mark.parametrize(("parts", "ranks"), [(1, 2), (4, 3)])
def test_parts_that_processes_cannot_share(parts: int, ranks: int) -> None:
    with pytest.raises(ArgumentError, match=f"parts: {parts} by {ranks} processes"):
        parts_of(QUICK.replace(parts=parts), Place(0, ranks))


def test_each_process_has_its_own_parts() -> None:
    shares = [[*parts_of(QUICK.replace(parts=4), Place(rank, 2))] for rank in range(2)]
    assert shares == [[0, 1], [2, 3]]
