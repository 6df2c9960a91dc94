"""What owners do with a model before, after and while it is accelerated."""

import copy
import logging
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.drop_in.install import installed
from marfast.ops import choice
from marfast.reference import MAR
from marfast.reference.head import DiffLoss, SimpleMLPAdaLN
from tests.models import TINY, tiny_pipeline, tiny_weights

LABELS = torch.tensor([3, 1, 4])


def make() -> MAR:
    built = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    return built


def sample(module: Any, **options: Any) -> Tensor:
    np.random.seed(5)
    torch.manual_seed(5)
    with torch.no_grad():
        images: Tensor = module.sample_tokens(
            3, **({"num_iter": 5, "labels": LABELS, "cfg": 2.0} | options)
        )
    return images


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture
def fast() -> MAR:
    return marfast.accelerate(make())


def test_a_state_dict_has_the_same_keys_and_goes_both_ways(fast: MAR) -> None:
    plain = make()
    assert fast.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(tiny_weights(seed=4))
    fast.load_state_dict(plain.state_dict())
    assert_same(sample(fast), sample(plain))


def test_an_ema_is_swapped_in_and_out(fast: MAR) -> None:
    own = [parameter.detach().clone() for parameter in fast.parameters()]
    expected = sample(fast)
    average = make()
    average.load_state_dict(tiny_weights(seed=4))
    for parameter, value in zip(fast.parameters(), average.parameters(), strict=True):
        parameter.data.copy_(value)
    assert_same(sample(fast), sample(average))
    for parameter, value in zip(fast.parameters(), own, strict=True):
        parameter.data = value
    assert torch.equal(sample(fast), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_to_another_dtype_and_back(fast: MAR, dtype: torch.dtype) -> None:
    expected = sample(fast)
    images = sample(fast.to(dtype))
    off = (images - expected).square().mean().sqrt()
    assert off < (1e-5 if dtype == torch.float64 else 0.2)
    fast.float().load_state_dict(tiny_weights())
    assert torch.equal(sample(fast), expected)


def test_to_and_cpu_are_harmless(fast: MAR) -> None:
    expected = sample(fast)
    assert torch.equal(sample(fast.to("cpu").cpu().to(torch.float32).eval()), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_whatever_the_gradient_mode(fast: MAR, context: Any) -> None:
    expected = sample(fast)
    np.random.seed(5)
    torch.manual_seed(5)
    with context():
        images = fast.sample_tokens(3, num_iter=5, labels=LABELS, cfg=2.0)
    assert torch.equal(images, expected)
    assert not images.requires_grad


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_fast_and_restores_alone(fast: MAR, copied: Any) -> None:
    other = copied(fast)
    for part, name in ((other, "sample_tokens"), (other.diffloss, "sample")):
        assert getattr(part, name).__self__ is part
        assert name in installed(part)
    marfast.restore(other)
    assert type(other) is MAR
    assert "sample_tokens" in installed(fast)
    assert_same(sample(fast), sample(other))


def test_several_models_at_once() -> None:
    first, second = make(), make()
    second.load_state_dict(tiny_weights(seed=4))
    expected = sample(first), sample(second)
    marfast.accelerate(first)
    marfast.accelerate(second)
    for _ in range(2):
        assert_same(sample(first), expected[0])
        assert_same(sample(second), expected[1])


def test_accelerating_twice_is_accelerating_once(fast: MAR) -> None:
    marfast.accelerate(fast, backend="cpu")
    marfast.restore(fast)
    for part in fast.modules():
        assert not installed(part)


@pytest.mark.parametrize(
    "place", ["decoder_blocks.1.attn", "diffloss.net.res_blocks.0", "diffloss.net"]
)
def test_forward_hooks_run_and_may_change_the_result(place: str) -> None:
    module = make()
    plain, calls = sample(module), []
    part = module.get_submodule(place)
    part.register_forward_hook(lambda m, args, out: calls.append(m) or out * 1.5)
    if place == "diffloss.net":  # the original calls net.forward, which runs no hook
        expected = plain
    else:
        expected = sample(module)
        assert (expected - plain).abs().max() > 1e-3
        assert calls
    assert_same(sample(marfast.accelerate(module)), expected)


def test_torch_compile_round_it(fast: MAR) -> None:
    expected = sample(fast)
    assert torch.equal(sample(torch.compile(fast)), expected)
    calls = torch.compile(fast.sample_tokens, backend="eager")
    np.random.seed(5)
    torch.manual_seed(5)
    with torch.no_grad():
        assert torch.equal(calls(3, num_iter=5, labels=LABELS, cfg=2.0), expected)


def test_distributed_data_parallel(fast: MAR, tmp_path: Any) -> None:
    import torch.distributed as dist

    expected = sample(fast)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(fast.train())
        loss = wrapped(torch.randn(2, 1, 16, 16), LABELS[:2])
        loss.backward()
        assert fast.mask_token.grad is not None
        assert torch.equal(sample(wrapped.eval().module), expected)
    finally:
        dist.destroy_process_group()


def test_backend_reference_is_bit_equal() -> None:
    module = make()
    expected = sample(module)
    marfast.accelerate(module, backend="reference")
    assert torch.equal(sample(module), expected)
    z = torch.randn(6, module.diffloss.net.cond_embed.in_features)
    torch.manual_seed(0)
    actual = module.diffloss.sample(z, 0.9, 2.0)
    torch.manual_seed(0)
    assert torch.equal(marfast.restore(module).diffloss.sample(z, 0.9, 2.0)[:3], actual[:3])


class ModelWithAHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(5, 24)
        self.loss = DiffLoss(16, 24, depth=2, width=40, num_sampling_steps="6", clip_denoised=True)
        self.other = nn.ModuleDict({"head": SimpleMLPAdaLN(3, 33, 6, 24, 1)})
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("cfg", [1.0, 2.5, torch.tensor([2.5])])
def test_a_diffloss_inside_a_larger_model(cfg: Any) -> None:
    model = ModelWithAHead().eval()
    z = torch.randn(8, 24)
    torch.manual_seed(1)
    expected = model.loss.sample(z, temperature=0.9, cfg=cfg)
    state = torch.get_rng_state()
    assert marfast.accelerate(model) is model
    torch.manual_seed(1)
    with choice.used() as used:
        actual = model.loss.sample(z, temperature=0.9, cfg=cfg)
    assert "ddpm_sample" in used
    assert torch.equal(torch.get_rng_state(), state)
    assert actual.shape == expected.shape
    rows = 8 if isinstance(cfg, float) and cfg == 1.0 else 4
    assert_same(actual[:rows], expected[:rows])


def test_a_bare_head_in_somebodys_own_sampler() -> None:
    model = ModelWithAHead().eval()
    head = model.other["head"]
    x, c = torch.randn(4, 3), torch.randn(4, 24)
    t = torch.tensor([0, 10, 500, 999])
    with torch.no_grad():
        expected, guided = head(x, t, c), head.forward_with_cfg(x, t, c, 2.0)
        marfast.accelerate(head)
        with choice.used() as used:
            assert_same(head(x, t, c), expected)
            assert_same(head.forward_with_cfg(x, t, c, 2.0), guided)
        assert "denoise" in used


def test_gradients_are_the_modules_own() -> None:
    model = ModelWithAHead().eval()
    head = model.other["head"]
    x, t, c = torch.randn(4, 3), torch.arange(4), torch.randn(4, 24)
    results = []
    for change in (marfast.restore, marfast.accelerate):
        change(model)
        head.zero_grad()
        output = head(x, t, c)
        output.square().sum().backward()
        results.append((output.detach(), head.input_proj.weight.grad.clone()))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


class OtherSample(DiffLoss):
    def sample(self, z: Tensor, temperature: float = 1.0, cfg: float = 1.0, sampler: Any = None):
        return super().sample(z, temperature, cfg) * 0.6


class OtherHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Linear(1, 4)
        self.cond_embed = nn.Linear(4, 4)


def test_what_is_replaced_and_what_is_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = ModelWithAHead()
    model.hart = OtherSample(16, 24, depth=1, width=8, num_sampling_steps="6")
    model.far = OtherHead()
    with caplog.at_level(logging.INFO, "marfast"):
        marfast.accelerate(model)
    told = {f"{f.path}.{f.method}": f.left for f in marfast.findings(model)}
    assert told["loss.sample"] == told["loss.net.forward"] == told["other.head.forward"] == ""
    assert told["hart.net.forward"] == ""
    assert "it takes (z, temperature, cfg, sampler)" in told["hart.sample"]
    assert "it lacks time_embed.mlp.0.weight" in told["far.forward"]
    assert caplog.messages == [str(finding) for finding in marfast.findings(model)]
    assert not installed(model.hart)


class SiluTwice(SimpleMLPAdaLN):
    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return super().forward(x, t, c) * 2


def test_a_head_that_computes_something_else_keeps_its_own_code() -> None:
    model = ModelWithAHead().eval()
    head = model.loss.net
    head.__class__ = SiluTwice
    z, x, t = torch.randn(4, 24), torch.randn(4, 16), torch.arange(4)
    torch.manual_seed(0)
    with torch.no_grad():
        expected, forward = model.loss.sample(z), head(x, t, z)
        marfast.accelerate(model)
        torch.manual_seed(0)
        assert_same(model.loss.sample(z), expected)
        assert torch.equal(head(x, t, z), forward)


def test_fp16_autocast_is_finite_where_the_module_overflows() -> None:
    """LTH14/mar's issue 69: float16 overflows in the head; here its hidden values do."""
    model = ModelWithAHead().eval()
    block = model.loss.net.res_blocks[0]
    with torch.no_grad():
        block.in_ln.weight.fill_(2)
        block.mlp[0].weight.mul_(1e5)
        block.mlp[2].weight.mul_(1e-4)
    z = torch.randn(8, 24)
    torch.manual_seed(1)
    exact = model.loss.sample(z, cfg=2.0)
    with torch.autocast("cpu", torch.float16):
        torch.manual_seed(1)
        assert not model.loss.sample(z, cfg=2.0).isfinite().all()
        marfast.accelerate(model)
        torch.manual_seed(1)
        actual = model.loss.sample(z, cfg=2.0)
    assert actual.isfinite().all()
    torch.testing.assert_close(actual[:4], exact[:4], rtol=0.1, atol=0.1)


class AsksForCuda(MAR):
    def sample_orders(self, bsz: int) -> Tensor:
        return super().sample_orders(bsz).cuda()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_own_code_that_asks_for_cuda_gets_one_line() -> None:
    module = make()
    module.__class__ = AsksForCuda
    marfast.accelerate(module)
    assert_same(sample(module), sample(make()))
    module.train()
    with pytest.raises(RuntimeError, match=r"asks for CUDA, which is not here: .*eval mode"):
        sample(module)


def test_no_warning_in_ordinary_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(marfast.accelerate(make()))


def test_in_training_mode_one_warning_says_that_its_own_code_runs() -> None:
    model = marfast.accelerate(make().train())
    with pytest.warns(RuntimeWarning) as told:
        [model.sample_tokens(1, num_iter=1) for _ in range(2)]
    [line] = [str(warning.message) for warning in told]
    assert "sample_tokens: the module is in training mode" in line
    assert "its own code runs" in line


def test_a_loaded_model_is_taken_as_it_is() -> None:
    model = tiny_pipeline()
    assert marfast.accelerate(model, dtype=torch.bfloat16, sampler="ddim") is model
    assert (model.model.dtype, model.settings.sampler) == (torch.bfloat16, "ddim")
    assert marfast.restore(model) is model
    with pytest.raises(ValueError, match="backend: 'torch'; allowed is \"auto\" for a loaded"):
        marfast.accelerate(model, backend="torch")
