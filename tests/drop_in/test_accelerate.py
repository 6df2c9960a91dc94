"""`accelerate` and `restore` on a live MAR."""

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.drop_in.install import installed
from marfast.ops import choice
from marfast.reference import MAR
from marfast.reference.head_spec import MAR_HEAD
from tests.models import TINY, tiny_weights

LABELS = torch.tensor([3, 1, 4])


@pytest.fixture
def module() -> MAR:
    built = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    return built


def sample(module: Any, **options: Any) -> tuple[Tensor, Any]:
    np.random.seed(5)
    torch.manual_seed(5)
    with torch.no_grad():
        images = module.sample_tokens(3, **({"num_iter": 5, "labels": LABELS} | options))
    return images, (np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist())


OPTIONS: list[dict[str, Any]] = [
    {},
    {"cfg": 2.5},
    {"cfg": torch.tensor([2.5])},
    {"cfg": 3.0, "cfg_schedule": "constant", "temperature": 0.8},
    {"labels": None, "cfg": 2.0},
    {"num_iter": 16},
    {"num_iter": 1, "progress": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_images_and_generator_states(module: MAR, options: dict[str, Any]) -> None:
    expected, state = sample(module, **options)
    assert marfast.accelerate(module) is module
    images, after = sample(module, **options)
    assert after == state
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
    marfast.accelerate(module, backend="reference")
    assert torch.equal(sample(module, **options)[0], expected)


def test_restore_leaves_nothing(module: MAR) -> None:
    before = dict(module.__dict__)
    expected, _ = sample(module)
    marfast.accelerate(marfast.accelerate(module))
    assert marfast.restore(module) is module
    assert module.__dict__ == before
    assert torch.equal(sample(module)[0], expected)
    marfast.restore(module)


def load_other(module: MAR) -> None:
    module.load_state_dict(tiny_weights(seed=9))


def write_in_place(module: MAR) -> None:
    with torch.no_grad():
        module.diffloss.net.input_proj.weight.mul_(0.5)


def write_data(module: MAR) -> None:
    module.diffloss.net.input_proj.weight.data.mul_(0.5)


def replace_parameter(module: MAR) -> None:
    module.diffloss.net.input_proj.weight = nn.Parameter(torch.ones(24, 16) * 0.1)


@pytest.mark.parametrize("change", [load_other, write_in_place, write_data, replace_parameter])
def test_weights_may_change_at_any_time(module: MAR, change: Any) -> None:
    marfast.accelerate(module)
    first, _ = sample(module, cfg=2.0)
    change(module)
    images, _ = sample(module, cfg=2.0)
    assert (images - first).abs().max() > 1e-3
    expected, _ = sample(marfast.restore(module), cfg=2.0)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_fast_and_independent(module: MAR, copied: Any) -> None:
    marfast.accelerate(module)
    expected, _ = sample(module)
    other = copied(module)
    assert other.sample_tokens.__self__ is other
    load_other(module)
    torch.testing.assert_close(sample(other)[0], expected, rtol=0, atol=0)


def test_training_is_untouched(module: MAR) -> None:
    images = torch.randn(2, 1, 16, 16)
    losses = []
    for change in (marfast.restore, marfast.accelerate):
        change(module).train()
        torch.manual_seed(0)
        np.random.seed(0)
        loss = module(images, LABELS[:2])
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    assert module.mask_token.grad is not None


def test_in_training_mode_the_modules_own_code_samples(module: MAR) -> None:
    module.train()
    expected, state = sample(module)
    images, after = sample(marfast.accelerate(module))
    assert torch.equal(images, expected)
    assert after == state


def test_a_backend_forced_outside_holds(module: MAR) -> None:
    expected, _ = sample(module)
    marfast.accelerate(module)
    with marfast.backend("reference"), choice.used() as used:
        assert torch.equal(sample(module)[0], expected)
    assert set(used["ddpm_sample"]) == {"reference"}


def test_what_was_replaced_comes_back(module: MAR) -> None:
    def own(*args: Any, **kwargs: Any) -> str:
        return "own"

    module.sample_tokens = own  # type: ignore[method-assign, assignment]
    marfast.restore(marfast.accelerate(marfast.accelerate(module)))
    assert module.sample_tokens is own


class OtherEncoder(MAR):
    def forward_mae_encoder(self, x: Tensor, mask: Tensor, class_embedding: Tensor) -> Tensor:
        return super().forward_mae_encoder(x, mask, class_embedding) * 2


def add_hook(module: MAR) -> None:
    module.encoder_blocks[0].attn.register_forward_hook(lambda m, args, out: out * 3)


def other_encoder(module: MAR) -> None:
    module.__class__ = OtherEncoder


def other_attention(module: MAR) -> None:
    forward = module.decoder_blocks[1].attn.forward
    module.decoder_blocks[1].attn.forward = lambda x: forward(x) * 3


@pytest.mark.parametrize("change", [add_hook, other_encoder, other_attention])
@pytest.mark.filterwarnings("ignore:.*computes something else")
def test_a_module_that_computes_something_else_stays_right(module: MAR, change: Any) -> None:
    plain, _ = sample(module)
    change(module)
    expected, _ = sample(module)
    assert (expected - plain).abs().max() > 1e-3
    marfast.accelerate(module)
    torch.testing.assert_close(sample(module)[0], expected, rtol=0, atol=1e-4)


def test_parts_replaced_later_are_used(module: MAR) -> None:
    marfast.accelerate(module)
    sample(module)
    other = TINY.build(steps="4", clip_denoised=True)
    other.load_state_dict(tiny_weights(seed=7), assign=True)
    module.encoder_blocks = other.encoder_blocks
    module.diffloss.net = other.diffloss.net
    images, _ = sample(module)
    torch.testing.assert_close(images, sample(marfast.restore(module))[0], rtol=0, atol=1e-4)


def test_autocast_packs_once(module: MAR, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    pack = marfast.ops.pack_head
    module = marfast.accelerate(module)
    packing = installed(module)["sample_tokens"].kept.head._packing(MAR_HEAD)
    monkeypatch.setattr(
        packing, "_pack", lambda weights: packed.append(weights[0].dtype) or pack(weights)
    )
    op = sys.modules["marfast.ops.head.cpu"]
    monkeypatch.setattr(op, "pack_head", lambda a, **_: packed.append(None) or pack(a))
    with torch.autocast("cpu", torch.bfloat16):
        assert sample(module, cfg=2.0)[0].isfinite().all()
    assert packed == [torch.bfloat16]


def test_what_is_no_mar_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Linear has no MAR, DiffLoss or SimpleMLPAdaLN .*lacks class_emb"
    ):
        marfast.accelerate(nn.Linear(2, 2))


def test_an_unknown_backend_is_refused(module: MAR) -> None:
    with pytest.raises(ValueError, match="backend: 'tpu'"):
        marfast.accelerate(module, backend="tpu")
    assert "sample_tokens" not in module.__dict__


def test_an_unknown_dtype_is_refused(module: MAR) -> None:
    with pytest.raises(ValueError, match=r"dtype: torch\.int8; allowed are None, torch\.float32"):
        marfast.accelerate(module, dtype=torch.int8)
    assert "sample_tokens" not in module.__dict__


def relative(images: Tensor, expected: Tensor) -> float:
    return float((images - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("asked", ["argument", "autocast"])
def test_half_precision_is_nearer_than_the_modules_own(
    module: MAR, dtype: torch.dtype, asked: str
) -> None:
    exact, state = sample(module, cfg=2.0)
    with torch.autocast("cpu", dtype):
        own, _ = sample(module, cfg=2.0)
    marfast.accelerate(module, dtype=dtype if asked == "argument" else None)
    with torch.autocast("cpu", dtype, enabled=asked == "autocast"):
        images, after = sample(module, cfg=2.0)
    assert after == state
    assert 0 < relative(images, exact) <= 1.5 * relative(own, exact)


def test_float32_turns_autocast_off(module: MAR) -> None:
    expected, _ = sample(marfast.accelerate(module))
    marfast.accelerate(module, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sample(module)[0], expected)
