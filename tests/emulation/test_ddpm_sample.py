"""`ddpm_sample`'s cuda backend in the emulator: float32 to the bit of the CPU's portable build,
halves beside PyTorch's own error."""

import os
from functools import partial

import pytest
import torch

from marfast import ops
from marfast.ops.ddpm_sample import cuda as sampler
from marfast.ops.ddpm_sample import plan
from marfast.ops.head import HeadShape, gpu
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu, cuda
from marfast.reference.head_weights import HeadWeights
from tests.emulation import build
from tests.emulation.module import on_cuda
from tests.gpu.regimes import REGIMES, in_regime
from tests.helpers import assert_as_accurate
from tests.ops.heads import OnOneDevice, sample_inputs, sampler_inputs

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())
CPU = torch.device("cpu")
plain = OPS["ddpm_sample"].plain
LONG = bool(os.environ.get("MARFAST_TEST_EMULATION"))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("sizes", "regime"),
    [
        ({"tokens": 3, "width": 64, "depth": 3}, "persistent"),
        ({"tokens": 2, "width": 288, "condition": 300, "depth": 1, "guided": False}, "persistent"),
        (
            {"tokens": 5, "width": 32, "channels": 5, "frequencies": 18, "condition": 19},
            "persistent",
        ),
        ({"tokens": 3, "width": 40, "channels": 5}, "tall"),
        ({"tokens": 0, "width": 64}, "persistent"),
    ],
)
@pytest.mark.parametrize("budget", [1 << 30, 3 * 2 * 8 * 64 * 4 * 2])
def test_float32_is_the_cpus_portable_build_to_the_bit(
    sizes, regime, budget, monkeypatch, emulated
):
    """Also where the modulation is made for two steps at a time, or for some of the tokens."""
    emulated.marfast_emulation_device(True, 4, 227 << 10)  # weights of 288 columns fit
    monkeypatch.setattr(gpu, "MODULATION_BUDGET", budget)
    args = sample_inputs(**sizes)
    with cpu.cpu_isa("portable"), ops.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    assert torch.equal(sampled(regime, *args), expected)


def sampled(regime, *args):
    return in_regime(regime, lambda: on_cuda(ops.ddpm_sample, *args))()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
@pytest.mark.parametrize(("width", "persistent"), [(64, True), (40, False)])
def test_the_plan_is_asked_for_widths_that_the_kernel_takes(width, persistent):
    shape = HeadShape(16, 24, width, 2, 256, width)
    chosen, reason = sampler.regime(shape, torch.float32, CPU, 2, 4)
    assert (chosen is not None, "multiples of 32" in reason) == (persistent, not persistent)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
@pytest.mark.parametrize(("depth", "persistent"), [(32, True), (33, False)])
def test_the_kernels_parameters_have_room_for_so_many_weights(depth, persistent):
    shape = HeadShape(16, 24, 32, depth, 256, 32)
    chosen, reason = sampler.regime(shape, torch.float32, CPU, 2, 1, "persistent")
    assert (chosen is not None, "depths of 1 to 32" in reason) == (persistent, not persistent)
    args = sample_inputs(1, width=32, depth=depth, steps=2)
    with cpu.cpu_isa("portable"), ops.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    assert torch.equal(sampled("persistent" if persistent else "tall", *args), expected)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["random"], indirect=True)
@pytest.mark.parametrize("sampler_name", ["ddim", "dpm++2m-sde"])
@pytest.mark.parametrize("regime", REGIMES)
def test_other_samplers_have_the_portable_bits_too(sampler_name, regime, monkeypatch):
    """With two tokens at a time, and two steps."""
    monkeypatch.setattr(gpu, "MODULATION_BUDGET", 4 * 2 * 8 * 64 * 4 * 2)
    args = sampler_inputs(sampler_name, tokens=3, width=64, steps=4)
    with cpu.cpu_isa("portable"), ops.backend("cpu"):
        expected = ops.ddpm_sample(*args)
    assert torch.equal(sampled(regime, *args), expected)


@pytest.fixture
def one_thread():
    """Thousands of small products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("emulated", "one_thread")
@pytest.mark.parametrize("emulated", ["random"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_whole_sample_is_as_exact_as_pytorchs(dtype, regime):
    sizes = {"width": 32, "condition": 24, "depth": 2, "frequencies": 32, "steps": 100}
    cases = (sample_inputs(4, **sizes, seed=i, dtype=dtype) for i in range(8 if LONG else 1))
    assert_as_accurate(partial(sampled, regime), plain, cases)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
@pytest.mark.parametrize("regime", REGIMES)
def test_float16_stays_finite_past_its_range(regime):
    noise, step_noise, cond, weights, *rest = sample_inputs(3, width=32, dtype=torch.float16)
    layers = HeadWeights.of(weights)
    for tensor in (layers.blocks[0].modulation.bias, layers.blocks[1].mlp_in.bias):
        tensor.fill_(6e4)  # what LN + modulate and the first product give passes the range
    args = (1e6 * noise, step_noise, cond, weights, *rest)
    assert torch.isfinite(sampled(regime, *args)).all()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["random"], indirect=True)
def test_a_token_has_the_same_bits_in_any_batch_and_plan():
    args = sample_inputs(5, guided=False, width=160, steps=2, dtype=torch.bfloat16)
    together = sampled("persistent", *args)
    alone = (args[0][2:3], args[1][:, 2:3], args[2][2:3], *args[3:])
    assert torch.equal(sampled("persistent", *alone), together[2:3])


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
def test_a_plan_that_the_device_can_not_hold_gives_way(monkeypatch):
    shape, dtype = HeadShape(16, 24, 64, 2, 256, 64), torch.bfloat16
    assert sampler.regime(shape, dtype, CPU, 2, 4)[0] is not None
    monkeypatch.setattr(cuda.module(), "resident_blocks", lambda **_: 3)
    assert sampler.regime(shape, dtype, CPU, 2, 4) == (
        None,
        "the device holds 3 of its 4 blocks at once",
    )


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
def test_the_variants_of_a_call_are_other_plans_with_the_same_bits():
    a = OPS["ddpm_sample"].bind(*sample_inputs(5, width=64, steps=2))
    found = sampler.variants(a)
    assert found[:2] == ["tall", "persistent"]
    expected = sampler.run(a)
    for variant in found:
        assert torch.equal(sampler.run(a, variant), expected), variant
    wide = OPS["ddpm_sample"].bind(*sample_inputs(3, width=40, channels=5))
    assert sampler.variants(wide) == ["tall"], "no plan, no variant"


@pytest.mark.parametrize("tall", [False, True], ids=["persistent", "tall"])
def test_nothing_is_taken_from_the_host_after_the_first_call(tall, monkeypatch):
    """On the meta device, which no kernel reads: what a graph's capture asks for."""
    launched = []
    device = plan.gpu_profiles()["H200"]
    shape = HeadShape(16, 24, 64, 2, 256, 64)
    chosen = plan.head_plan(6, shape, device, torch.bfloat16, 4, persistent=True)
    monkeypatch.setattr(sampler, "regime", lambda *_: (None if tall else chosen, ""))
    monkeypatch.setattr(cuda, "call", lambda name, *_, **__: launched.append(name))
    args = sample_inputs(3, width=64, dtype=torch.bfloat16)
    meta = [
        [part.to("meta") for part in value] if isinstance(value, list) else value.to("meta")
        for value in args[:7]
    ]
    op = OPS["ddpm_sample"]
    a = op.bind(*meta, *args[7:])
    op.backends["cuda"].run(a)
    first = len(launched)
    with OnOneDevice():
        op.backends["cuda"].run(a)
    assert launched[first:] == launched[:first]
    assert launched[:first].count("ddpm_sample") == (0 if tall else 1)
    assert launched[:first].count("ddpm_step") == (4 if tall else 0)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
@pytest.mark.parametrize(
    ("width", "depth", "sms", "dtype"),
    [
        (1024, 6, 132, torch.bfloat16),
        (1024, 6, 132, torch.float32),
        (2048, 1, 132, torch.float16),
    ],
)
def test_the_real_geometry(width, depth, sms, dtype, monkeypatch, emulated):
    """MAR-B's, and the widest; 2 steps. About a minute each: `make test-emulation` runs it."""
    if not LONG:
        pytest.skip("MARFAST_TEST_EMULATION=1 runs it")
    device = plan.gpu_profiles()["H100 SXM"]
    shape = HeadShape(16, 768, width, depth, 256, width)
    emulated.marfast_emulation_device(True, device.sms, device.shared_bytes)
    chosen = plan.head_plan(2, shape, device, dtype, 2, persistent=True)
    assert chosen.row_groups * chosen.column_groups >= 0.9 * sms
    monkeypatch.setattr(sampler, "regime", lambda *_: (chosen, ""))
    sizes = {"width": width, "condition": 768, "depth": depth, "steps": 2}
    args = sample_inputs(1, **sizes, dtype=dtype)
    got = on_cuda(ops.ddpm_sample, *args)
    if dtype == torch.float32:
        with cpu.cpu_isa("portable"), ops.backend("cpu"):
            assert torch.equal(got, ops.ddpm_sample(*args))
    widened = (*args[:3], [weight.float() for weight in args[3]], *args[4:])
    exact = plain(*widened)
    theirs = (plain(*args) - exact).abs().max()
    assert (got - exact).abs().max() <= max(4 * theirs, 1e-4)
