"""`ddpm_step`: bits given σ, σ itself, every instruction set, hostile shapes and inputs."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from marfast.reference import diffusion
from marfast.reference.samplers import COLUMNS, Coefficients
from marfast.verifying.compare import ulp_distance
from tests.helpers import assert_bitwise_equal, on_every_isa

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Below, at and above a vector's 16 lanes; MAR's tokens have 16 channels.
SHAPES = [
    (0, 16),
    (1, 1),
    (2, 3),
    (3, 16),
    (17, 64),
    (129, 16),
    (5, 17),
    (2, 0),
]


def inputs(
    tokens: int, channels: int, *, guided: bool = True, dtype: torch.dtype = torch.float32, seed=0
) -> tuple[Tensor, ...]:
    """x, model_output, noise, coefficients, guidance: random, at a random step of 100."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * tokens if guided else tokens
    x, noise = torch.randn(2, tokens, channels, generator=generator)
    model_output = torch.randn(rows, 2 * channels, generator=generator).to(dtype)
    coefficients, _ = diffusion.create_diffusion("100").sampling_schedule()
    step = int(torch.randint(100, (), generator=generator))
    return x, model_output, noise, coefficients[step], torch.tensor([2.9])


def row(**factors: float) -> Tensor:
    """A step's coefficients, all others 0."""
    zeros = Coefficients(*[0.0] * COLUMNS)
    return torch.tensor(zeros._replace(**factors))


def sigma_of(model_output: Tensor, coefficients: Tensor, tokens: int) -> Tensor:
    """The op's σ, seen through the op: x = 0, ε = 0, noise = 1."""
    channels = model_output.shape[1] // 2
    conditional = model_output[:tokens].clone()
    conditional[:, :channels] = 0
    coefficients = coefficients.clone()
    coefficients[Coefficients._fields.index("noise")] = 1
    zeros = torch.zeros(tokens, channels)
    return ops.ddpm_step(zeros, conditional, zeros + 1, coefficients, torch.ones(1))


def expected_given(sigma: Tensor, monkeypatch: pytest.MonkeyPatch, *args: Any) -> Tensor:
    """The reference, with σ in the place of its own exponential."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "exp", lambda _: sigma)
        return ops.ddpm_step.plain(*args)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.97])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("tokens", "channels"), SHAPES)
@pytest.mark.usefixtures("needs_native", "guarded_outputs")
def test_bit_equal_to_the_reference_given_sigma(
    tokens, channels, guided, dtype, temperature, clip, monkeypatch
):
    args = (*inputs(tokens, channels, guided=guided, dtype=dtype, seed=tokens), temperature, clip)
    with ops.backend("cpu"):
        sigma = sigma_of(args[1], args[3], tokens)
    expected = expected_given(sigma, monkeypatch, *args)
    for isa, actual in on_every_isa(ops.ddpm_step, *args).items():
        assert_bitwise_equal(actual, expected, isa)


def test_sigma_is_within_one_ulp_over_the_whole_range(isa):
    # log σ² from -220 to 190: σ from 0 through the subnormals to infinity.
    v = torch.linspace(-441, 379, 1_000_003).reshape(1, -1)
    coefficients = row(log_beta=1, noise=1)
    model_output = torch.cat([torch.zeros_like(v), v], dim=1)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        sigma = sigma_of(model_output, coefficients, 1)
    fraction = (v + 1) / 2
    half = 0.5 * (fraction * 1 + (1 - fraction) * 0)
    exact = half.double().exp().float()
    assert (exact == 0).any()
    assert exact.isinf().any()
    assert ((exact > 0) & (exact < torch.finfo(torch.float32).tiny)).any()
    assert ulp_distance(sigma, exact).max() <= 1


def test_sigma_at_the_special_values(isa):
    v = torch.tensor([[float("nan"), float("inf"), -float("inf"), -417.0, -415.0, 0.0]])
    coefficients = row(log_beta=1, noise=1)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        sigma = sigma_of(torch.cat([v * 0, v], dim=1), coefficients, 1)[0]
    fraction = (v + 1) / 2
    # inf * 0 is NaN in the reference's log σ² as well.
    log_variance = fraction * 1 + (1 - fraction) * 0
    assert_bitwise_equal(sigma.isnan(), log_variance[0].isnan())
    assert sigma[3] == 0
    assert sigma[4] == 2**-149
    assert sigma[5] == pytest.approx(1.2840254)


def test_infinite_log_variance_gives_zero_or_infinity(isa):
    for log_variance, expected in ((-float("inf"), 0.0), (float("inf"), float("inf"))):
        coefficients = row(log_beta=log_variance, log_posterior=log_variance, noise=1)
        with cpu.cpu_isa(isa), ops.backend("cpu"):
            sigma = sigma_of(torch.zeros(1, 2), coefficients, 1)
        assert sigma.item() == expected


@pytest.mark.usefixtures("needs_native")
def test_sigma_has_the_portable_bits_on_every_instruction_set():
    v = torch.linspace(-500, 400, 300_007).reshape(1, -1)
    coefficients = row(log_beta=1, noise=1)
    model_output = torch.cat([torch.zeros_like(v), v], dim=1)
    results = on_every_isa(sigma_of, model_output, coefficients, 1)
    for isa, actual in results.items():
        assert_bitwise_equal(actual, results["portable"], isa)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_value_is_read_exactly(isa, dtype):
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).reshape(16, -1)
    model_output = torch.cat([every, torch.zeros_like(every)], dim=1)
    zeros = torch.zeros(every.shape)
    coefficients = row(q=-1, x0=1)  # out = ε
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.ddpm_step(zeros, model_output, zeros, coefficients, torch.ones(1))
    expected = every.float() + 0  # 0 - (-ε) turns -0 into 0
    assert_bitwise_equal(actual, expected)


def test_any_split_of_the_batch_gives_the_same_bits(needs_native):
    x, model_output, noise, coefficients, guidance = inputs(23, 16)
    whole = ops.ddpm_step(x, model_output, noise, coefficients, guidance)
    for start, end in ((0, 1), (1, 8), (8, 23)):
        own = torch.cat([model_output[start:end], model_output[23 + start : 23 + end]])
        part = ops.ddpm_step(x[start:end], own, noise[start:end], coefficients, guidance)
        assert_bitwise_equal(part, whole[start:end])


def test_layouts_do_not_change_the_bits(needs_native):
    args = inputs(7, 16)
    expected = ops.ddpm_step(*args)

    def padded(t: Tensor) -> Tensor:  # rows further apart
        return torch.cat([t, t], dim=-1)[..., : t.shape[-1]]

    def transposed(t: Tensor) -> Tensor:
        return t.t().contiguous().t() if t.dim() == 2 else t

    def strided(t: Tensor) -> Tensor:  # elements further apart, at an odd offset
        return torch.stack([t, t, t], dim=-1)[..., 1]

    for layout in (padded, transposed, strided):
        assert_bitwise_equal(ops.ddpm_step(*map(layout, args)), expected)
    one_row = (args[0][:1].expand(7, -1), *args[1:])
    assert_bitwise_equal(ops.ddpm_step(*one_row), ops.ddpm_step(one_row[0].contiguous(), *args[1:]))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-42, 3e38])
def test_extreme_inputs_come_out_as_the_reference_says(value, place, clip, isa, monkeypatch):
    args = list(inputs(3, 16))
    args[place][1, 5] = value
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        sigma = sigma_of(args[1], args[3], 3)
        actual = ops.ddpm_step(*args, 1.0, clip)
    assert_bitwise_equal(actual, expected_given(sigma, monkeypatch, *args, 1.0, clip))


def test_the_callers_floating_point_mode_does_not_matter(isa):
    args = inputs(3, 16)
    args[0][:] = 1e-40
    args[1][:] = 0
    args[2][:] = 1e-39
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        expected = ops.ddpm_step(*args)
        assert (expected != 0).all()
        assert (expected.abs() < torch.finfo(torch.float32).tiny).all(), "subnormal"
        torch.set_flush_denormal(True)
        try:
            actual = ops.ddpm_step(*args)
        finally:
            torch.set_flush_denormal(False)
    assert_bitwise_equal(actual, expected)


def replaced(place: int, tensor: Any) -> tuple[Any, ...]:
    args: list[Any] = list(inputs(4, 16))
    args[place] = tensor
    return tuple(args)


ERRORS = [
    (replaced(0, torch.zeros(4, 16).half()), TypeError, "x has dtype float16; it must be float32"),
    (replaced(0, torch.zeros(4, 2, 8)), ValueError, "x has shape [4, 2, 8]; it must be [2, N, C]"),
    (replaced(0, torch.zeros(4)), ValueError, "x has shape [4]; it must be [N, C]"),
    (replaced(1, torch.zeros(5, 32)), ValueError, "model_output has 5 rows; it must have N = 4"),
    (replaced(1, torch.zeros(8, 16)), ValueError, "model_output has shape [8, 16]; it must be"),
    (replaced(1, torch.zeros(())), ValueError, "model_output has 0 rows"),
    (replaced(1, torch.zeros(8, 32).double()), TypeError, "model_output has dtype float64"),
    (replaced(2, torch.zeros(4, 15)), ValueError, "noise has shape [4, 15]; it must be [N, C]"),
    (replaced(2, torch.zeros(4, 16).bfloat16()), TypeError, "noise has dtype bfloat16; it must"),
    (replaced(2, torch.zeros(4, 16, device="meta")), ValueError, "noise is on meta; it must be"),
    (replaced(3, torch.zeros(6)), ValueError, "coefficients has shape [6]; it must be [8] = [8]"),
    (replaced(3, torch.zeros(8).double()), TypeError, "coefficients has dtype float64; it must"),
    (replaced(4, torch.ones(())), ValueError, "guidance has shape []; it must be [1] = [1]"),
]


@pytest.mark.parametrize(("args", "kind", "message"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_a_wrong_argument_is_named(args, kind, message):
    pattern = re.escape(message)
    with pytest.raises(kind, match=pattern):
        ops.ddpm_step(*args)
    with pytest.raises(kind, match=pattern):
        torch.ops.marfast.ddpm_step(*args)
    with ops.backend("reference"), pytest.raises(kind, match=pattern):
        ops.ddpm_step(*args)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, Tensor) else a for a in args]
        # torch itself refuses tensors of two devices first.
        with pytest.raises((kind, RuntimeError)):
            ops.ddpm_step(*fakes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype, requires_grad):
    op = OPS["ddpm_step"]
    args = op.example_args(dtype)
    args = [a.requires_grad_(requires_grad) if isinstance(a, Tensor) else a for a in args]
    torch.library.opcheck(torch.ops.marfast.ddpm_step.default, args)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_gradients_in_float64(guided, clip):
    args = [a.double().requires_grad_() for a in inputs(3, 5, guided=guided)]

    def step(*tensors: Tensor) -> Tensor:
        return ops.ddpm_step(*tensors, 0.9, clip)

    assert torch.autograd.gradcheck(step, args)
    assert torch.autograd.gradgradcheck(step, args)


def test_gradients_are_the_references_bit_for_bit():
    args = [a.requires_grad_() for a in inputs(9, 16)]
    weight = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad((ops.ddpm_step(*args, 0.9, True) * weight).sum(), args)
    reference = ops.ddpm_step.plain(*args, 0.9, True)
    expected = torch.autograd.grad((reference * weight).sum(), args)
    for a, e in zip(actual, expected, strict=True):
        assert_bitwise_equal(a, e)


def test_float64_runs_in_plain_pytorch():
    args = [a.double() for a in inputs(3, 16)]
    assert ops.which("ddpm_step", *args) == "torch"
    assert_bitwise_equal(ops.ddpm_step(*args), ops.ddpm_step.plain(*args))


def test_compiles_without_a_graph_break(needs_native):
    args = inputs(5, 16)
    compiled = torch.compile(ops.ddpm_step, fullgraph=True, backend="aot_eager")
    assert_bitwise_equal(compiled(*args), ops.ddpm_step(*args))
