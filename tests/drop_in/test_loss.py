"""`accelerate(model, training=True)`: the module's own loss, gradients and draws."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.drop_in.install import installed
from marfast.ops import choice
from marfast.reference import MAR, create_diffusion
from marfast.reference.head import DiffLoss
from tests.models import TINY, tiny_weights

LABELS = torch.tensor([3, 1])
IGNORED = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def make() -> MAR:
    built = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    for parameter in built.parameters():
        parameter.requires_grad_()
    return built.train()


class Step:
    """One: the loss, every gradient, where the generators are afterwards, what ran."""

    def __init__(self, module: MAR, scale: float = 1.0, bf16: bool = False):
        images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
        np.random.seed(5)
        torch.manual_seed(5)
        module.zero_grad()
        with choice.used() as used:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = module(images, LABELS)
            (scale * loss).backward()
        self.loss = loss.detach()
        parameters = module.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
        self.states = np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
        self.fast = "diffusion_loss" in used or "diffusion_loss_gradients" in used


def assert_same(actual: Step, expected: Step, tolerance: float = 1e-4) -> None:
    assert actual.states == expected.states
    assert (actual.loss - expected.loss).abs() <= tolerance * expected.loss.abs()
    assert actual.gradients.keys() == expected.gradients.keys()
    for name, gradient in actual.gradients.items():
        off, right = gradient - expected.gradients[name], expected.gradients[name]
        assert off.norm() <= tolerance * right.norm(), name


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_modules_loss_gradients_and_draws(scale: float) -> None:
    module = make()
    expected = Step(module, scale)
    assert marfast.accelerate(module, training=True) is module
    actual = Step(module, scale)
    assert actual.fast
    assert_same(actual, expected)
    assert_same(Step(module, scale), expected)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_by_the_reference_to_the_bit(scale: float) -> None:
    module = make()
    expected = Step(module, scale)
    actual = Step(marfast.accelerate(module, "reference", training=True), scale)
    assert actual.fast
    assert torch.equal(actual.loss, expected.loss)
    assert actual.states == expected.states
    for name, gradient in expected.gradients.items():
        assert torch.equal(actual.gradients[name], gradient), name


def test_under_autocast() -> None:
    module = make()
    exact, expected = Step(module), Step(module, bf16=True)
    actual = Step(marfast.accelerate(module, training=True), bf16=True)
    assert actual.fast
    assert actual.states == expected.states

    def off(step: Step) -> float:
        errors = [(g - exact.gradients[name]).norm() for name, g in step.gradients.items()]
        return float(torch.stack(errors).square().sum().sqrt())

    assert off(actual) <= 2 * off(expected)
    assert (actual.loss - exact.loss).abs() < 0.05 * exact.loss.abs()


def test_it_is_off_by_default_and_undone() -> None:
    module = make()
    before = dict(module.__dict__)
    expected = Step(module)
    assert not Step(marfast.accelerate(module)).fast
    assert not any(f.method == "forward_loss" for f in marfast.findings(module))
    marfast.accelerate(module, training=True)
    replaced = {str(f) for f in marfast.findings(module)}
    assert {"forward_loss: replaced", "diffloss.forward: replaced"} <= replaced
    assert not Step(marfast.accelerate(module)).fast
    marfast.restore(marfast.accelerate(module, training=True))
    assert module.__dict__ == before
    actual = Step(module)
    assert not actual.fast
    assert torch.equal(actual.loss, expected.loss)


def test_eval_mode_is_the_modules_own() -> None:
    module = make().eval()
    expected = Step(module)
    actual = Step(marfast.accelerate(module, training=True))
    assert not actual.fast
    assert torch.equal(actual.loss, expected.loss)
    with choice.used() as used, torch.no_grad():
        module.sample_tokens(1, num_iter=2)
    assert "ddpm_sample" in used


@pytest.mark.parametrize("masked", [False, True])
def test_a_diffloss_of_another_model(masked: bool) -> None:
    found = []
    for training in (False, True):
        torch.manual_seed(0)
        diffloss = DiffLoss(16, 24, 2, 40, "5").train()
        for parameter in diffloss.parameters():
            nn.init.normal_(parameter, std=0.1)
        target, z = torch.randn(9, 16), torch.randn(9, 24, requires_grad=True)
        mask = (torch.arange(9) % 2).float() if masked else None
        marfast.accelerate(diffloss, training=training)
        torch.manual_seed(1)
        with choice.used() as used:
            loss = diffloss(target, z, mask)
            loss.backward()
        assert ("diffusion_loss_gradients" in used) == training
        found.append((loss.detach(), z.grad, torch.get_rng_state()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


class OtherLoss(DiffLoss):
    def forward(self, target: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        return 2 * super().forward(target, z, mask)


class Detached(DiffLoss):
    """The same loss, other gradients."""

    def forward(self, target: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(target, z.detach() + 0.5 * (z - z.detach()), mask)


class Weighed(MAR):
    def forward_loss(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return super().forward_loss(z, target, mask) + z.square().mean()


class DrawsMore(MAR):
    def forward_loss(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        loss = super().forward_loss(z, target, mask)
        torch.rand(1)
        return loss


def other_class(path: str, kind: type) -> Any:
    def change(module: MAR) -> None:
        module.get_submodule(path).__class__ = kind

    return change


def hook_on_the_head(module: MAR) -> None:
    module.diffloss.net.register_forward_hook(lambda m, args, out: out * 0.9)


def hook_on_a_layer(module: MAR) -> None:
    module.diffloss.net.res_blocks[0].register_forward_hook(lambda m, args, out: out * 1.1)


def hook_on_diffloss(module: MAR) -> None:
    module.diffloss.register_forward_hook(lambda m, args, out: out * 1.1)


def dropout_in_the_head(module: MAR) -> None:
    net = module.diffloss.net
    net.res_blocks[0].mlp.append(nn.Dropout(0.5))


def other_process(module: MAR) -> None:
    module.diffloss.train_diffusion = create_diffusion("250")


def losses_on_the_instance(module: MAR) -> None:
    process = module.diffloss.train_diffusion
    own = process.training_losses
    process.training_losses = lambda *a, **k: {"loss": 3 * own(*a, **k)["loss"]}  # type: ignore


CHANGES = {
    "other loss": other_class("diffloss", OtherLoss),
    "other gradients": other_class("diffloss", Detached),
    "more than the loss": other_class("", Weighed),
    "more draws": other_class("", DrawsMore),
    **{
        change.__name__: change
        for change in (
            hook_on_the_head,
            hook_on_a_layer,
            hook_on_diffloss,
            dropout_in_the_head,
            other_process,
            losses_on_the_instance,
        )
    },
}


@IGNORED
@pytest.mark.parametrize("when", ["before", "after a first step"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_modules_own_loss_whatever_was_changed(change: Any, when: str) -> None:
    other, module = make(), make()
    change(other)
    expected = Step(other)
    if when == "before":
        change(module)
    marfast.accelerate(module, training=True)
    if when != "before":
        assert Step(module).fast
        change(module)
    for _ in range(2):
        assert_same(Step(module), expected)


@IGNORED
def test_a_loss_that_cannot_be_is_told() -> None:
    module = make()
    other_process(module)
    with pytest.warns(RuntimeWarning, match="no loss was made fast: .*process of 1000 timesteps"):
        marfast.accelerate(module, training=True)
    assert "sample_tokens" in installed(module)
    other = make()
    other.diffloss.__class__ = Detached
    marfast.accelerate(other, training=True)
    with pytest.warns(RuntimeWarning, match="forward: it computes something else"):
        Step(other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_an_optimizer_go_on(copied: Any) -> None:
    module = marfast.accelerate(make(), training=True)
    other = copied(module)
    losses = []
    for each in (other, marfast.restore(module)):
        optimizer = torch.optim.AdamW(each.parameters(), lr=1e-3)
        for _ in range(3):
            step = Step(each)
            optimizer.step()
        losses.append(step.loss)
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    assert Step(other).fast


def test_frozen_parts_get_no_gradient() -> None:
    module = make()
    module.diffloss.net.requires_grad_(False)
    expected = Step(module)
    assert_same(Step(marfast.accelerate(module, training=True)), expected)
    assert not any(name.startswith("diffloss") for name in expected.gradients)
