"""Heads of any spec by the ops: against float64 formulas, every backend and sampler."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from marfast.reference import Head, HeadSpec, create_diffusion
from marfast.reference.diffusion import GaussianDiffusion
from marfast.reference.respacing import sampling_timesteps
from marfast.reference.samplers import (
    Table,
    ddim,
    ddpm,
    diffusion_levels,
    dpm_solver,
    euler_maruyama,
    flow_levels,
)
from tests.helpers import (
    assert_as_accurate,
    assert_bitwise_equal,
    on_every_isa,
    with_defined_bits,
)
from tests.ops import sampler_loops as loops
from tests.ops.spec_heads import SPECS, denoise_args, drawn_weights, exact, shape_of

EXACT = 1e-11  # of the largest value, in float64
TIMES = sorted(sampling_timesteps(6, "ddim"), reverse=True)
FLOW = [i / 6 for i in range(7)]


def doubled(args: tuple[Any, ...]) -> tuple[Any, ...]:
    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [*map(wide, value)]
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(wide, args))


def assert_near(actual: Tensor, expected: Tensor, bound: float = EXACT) -> None:
    assert actual.isfinite().all()
    assert (actual - expected).abs().max() <= bound * expected.abs().max()


@pytest.fixture(params=["reference", "torch"])
def in_float64(request: pytest.FixtureRequest) -> Iterator[None]:
    with ops.backend(request.param):
        yield


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_a_head_is_its_formulas(spec: HeadSpec):
    for seed in range(3):
        x, t, cond, weights, *rest = denoise_args(spec, seed=seed)
        wide = doubled((x, cond, weights))
        actual = ops.denoise(wide[0], t, wide[1], wide[2], *rest)
        assert_near(actual, exact(x, t, cond, weights, spec))


def test_the_module_is_the_op():
    spec = SPECS[-1]
    x, t, cond, weights, *_ = denoise_args(spec)
    shape = shape_of(spec)
    net = Head(spec, shape.channels, shape.condition, 40, 4, shape.hidden, shape.frequencies)
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    with torch.no_grad(), ops.backend("reference"):
        assert torch.equal(net(x, t, cond), ops.denoise(x, t, cond, weights, None, str(spec)))


def backends_of(spec: HeadSpec) -> list[str]:
    """Those beside the reference that say they can run it here."""
    a = OPS["denoise"].bind(*denoise_args(spec, seed=1))
    return [
        b.name for b in OPS["denoise"].backends.values() if b.can_run(a)[0] and not b.on_request
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_every_backend_is_as_accurate_as_the_reference(spec: HeadSpec, dtype: torch.dtype):
    for name in backends_of(spec):
        cases = []
        for seed in range(8):
            x, t, cond, weights, *rest = denoise_args(spec, seed=seed)
            t = (t * 1000).long() if spec.time_scale == 1.0 else t
            cases.append((x, t, cond, [weight.to(dtype) for weight in weights], *rest))
        with ops.backend(name):
            assert_as_accurate(ops.denoise, ops.denoise.plain, cases)


Loop = Callable[..., Tensor]


def of_velocity(levels: Any, loop: Loop, sampler: Callable[..., Table]) -> Any:
    return lambda head, x, noise: loop(head, x, noise, FLOW), sampler(levels, prediction="velocity")


def guided(rows: Callable[[Tensor, Any], Tensor], scales: Tensor, branches: int) -> Any:
    """One branch's output from those of all."""

    def combined(x: Tensor, t: Any) -> Tensor:
        parts = rows(x.repeat(branches, 1), t).chunk(branches)
        if branches == 3:
            return parts[2] + scales[1] * (parts[1] - parts[2]) + scales[0] * (parts[0] - parts[1])
        return parts[1] + scales[0] * (parts[0] - parts[1]) if branches == 2 else parts[0]

    return combined


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("name", ["euler", "euler-maruyama", "dpm++2m of v", "dpm++2m-sde of v"])
@pytest.mark.parametrize("spec", SPECS[-4:], ids=range(4))
def test_samplers_are_their_papers_loops(spec: HeadSpec, name: str, branches: int):
    shape, scales = shape_of(spec), torch.tensor([1.7, 0.6]).double()
    generator = torch.Generator().manual_seed(1)
    weights = drawn_weights(spec, shape)
    x = torch.randn(4, shape.channels, generator=generator).double()
    noise = torch.randn(6, 4, shape.channels, generator=generator).double()
    cond = torch.randn(4 * branches, shape.condition, generator=generator)

    def rows(x: Tensor, t: float) -> Tensor:
        told = torch.full((len(x),), t, dtype=torch.float32)
        if spec.times == 2:  # a step's begin and end
            after = torch.full_like(told, FLOW[round(t * 6) + 1] if t < 1 else t)
            told = torch.stack([told, after], 1)
        return exact(x, told, cond, weights, spec)[:, : shape.channels]

    head = guided(rows, scales, branches)
    if "euler" in name:
        levels = flow_levels(FLOW, spans=spec.times == 2)
        sampler = {"euler": ddim, "euler-maruyama": euler_maruyama}[name]
        table = sampler(levels, prediction="velocity")
        expected = getattr(loops, name.replace("-", "_"))(head, x, noise, FLOW)
    elif spec.times == 2:
        pytest.skip("two times are a flow's")
    else:
        sde = "sde" in name
        table = dpm_solver(diffusion_levels(GaussianDiffusion(TIMES)), sde, "v")

        def x0(x: Tensor, t: int) -> Tensor:
            alpha = loops.alpha_bar(t) ** 0.5
            return alpha * x - (1 - loops.alpha_bar(t)) ** 0.5 * head(x, t)

        expected = loops.dpm_solver(x0, x, noise, TIMES, sde)
        x = torch.stack([x, torch.full_like(x, 7.0)])
    shape_of_scales = {1: scales[:1], 2: scales[:1], 3: scales[None]}[branches]
    actual = ops.ddpm_sample(
        x,
        noise,
        cond.double(),
        [weight.double() for weight in weights],
        table.coefficients.double(),
        table.timesteps if "dpm" in name else table.timesteps.double(),
        shape_of_scales,
        learned_range=False,
        spec=str(spec),
    )
    # the table's coefficients are float32
    assert_near(actual[0] if table.multistep else actual, expected, 2e-5)


@pytest.mark.usefixtures("in_float64")
def test_ddpm_takes_any_head_with_variance():
    spec = replace(SPECS[-1], variance=True, times=1)
    process = create_diffusion("5")
    table = ddpm(process)
    x, _, cond, weights, *_ = doubled(denoise_args(spec, 3))
    noise = torch.randn(5, *x.shape, generator=torch.Generator().manual_seed(0)).double()
    rest = (table.coefficients.double(), table.timesteps, torch.ones(1).double())
    actual = ops.ddpm_sample(x, noise, cond, weights, *rest, clip_denoised=True, spec=str(spec))
    state = x
    for row, t, n in zip(table.coefficients.double(), table.timesteps, noise, strict=True):
        output = exact(state, t.expand(3), cond, weights, spec)
        state = ops.ddpm_step(state, output, n, row, rest[-1], 1.0, True)
    assert_near(actual, state)


@pytest.mark.usefixtures("needs_native", "guarded_outputs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    spec: HeadSpec, dtype: torch.dtype
):
    for seed in range(3):  # as many widths of an MLP
        x, t, cond, weights, *rest = denoise_args(spec, 17, seed)
        args = (x, t, cond, [weight.to(dtype) for weight in weights], *rest)
        results = on_every_isa(ops.denoise, *args)
        for isa, actual in with_defined_bits(results, dtype).items():
            assert_bitwise_equal(actual, results["portable"], isa)
        expected = ops.denoise(*args)
        try:
            torch.set_num_threads(3)
            assert_bitwise_equal(ops.denoise(*args), expected, "3 threads")
        finally:
            torch.set_num_threads(1)


@pytest.mark.usefixtures("needs_native", "guarded_outputs")
@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("spec", SPECS[-4:], ids=range(4))
def test_a_whole_sample_is_the_loop_of_denoise_and_ddpm_step(spec: HeadSpec, branches: int):
    shape, text, generator = shape_of(spec), str(spec), torch.Generator().manual_seed(1)
    weights, steps = drawn_weights(spec, shape), 5
    x = torch.randn(4, shape.channels, generator=generator)
    noise = torch.randn(steps, *x.shape, generator=generator)
    cond = torch.randn(4 * branches, shape.condition, generator=generator)
    table = euler_maruyama(flow_levels([i / steps for i in range(steps + 1)], 1.0, spec.times == 2))
    scales = torch.linspace(0.5, 2.0, steps * max(1, branches - 1))
    scales = scales.view(steps, 2) if branches == 3 else scales
    packed = ops.pack_head(weights, spec=text)
    args = (x, noise, cond, weights, table.coefficients, table.timesteps, scales, 0.9, False)
    results = on_every_isa(ops.ddpm_sample, *args, packed, False, text)
    for isa, actual in results.items():
        assert_bitwise_equal(actual, results["portable"], isa)
    for t, row, n, scale in zip(table.timesteps, table.coefficients, noise, scales, strict=True):
        rows = x.repeat(branches, 1)
        output = ops.denoise(rows, t.expand(len(rows), *t.shape), cond, weights, packed, text)
        output = output[:, : shape.channels].contiguous()
        x = ops.ddpm_step(x, output, n, row, scale.view(-1), 0.9, False, False)
    assert_bitwise_equal(results["portable"], x)


def test_gradients_and_opcheck():
    spec = SPECS[-2]
    x, t, cond, weights, *rest = denoise_args(spec, 2, width=3, depth=1)
    floats = [value.double().requires_grad_() for value in (x, cond, *weights)]
    assert torch.autograd.gradcheck(
        lambda x, cond, *weights: ops.denoise(x, t, cond, weights, *rest), floats
    )
    overload = torch.ops.marfast.denoise.default
    args = (floats[0], t, floats[1], floats[2:], *rest)
    torch.library.opcheck(overload, args, test_utils=("test_schema", "test_faketensor"))
