"""Heads of any spec by the ops: against float64 formulas, every backend and sampler."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.head import HeadShape
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
from tests.helpers import assert_as_accurate
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
@pytest.mark.parametrize("spec", SPECS[-6:], ids=range(6))
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


def with_weight(spec: HeadSpec, place: int, weight: Tensor) -> list[Tensor]:
    weights = denoise_args(spec)[3]
    return [*weights[:place], weight, *weights[place + 1 :]]


SWIGLU = HeadSpec(activation="swiglu", variance=False)
ERRORS = [
    (
        SWIGLU,
        with_weight(SWIGLU, 10, torch.zeros(79, 40)),
        "weights[10] (res_blocks.0.mlp.0.weight)",
    ),
    (SWIGLU, denoise_args(HeadSpec(variance=False))[3], "weights[12] (res_blocks.0.mlp.2.weight)"),
    (SWIGLU, denoise_args(SWIGLU)[3][:-1], "weights has 43 tensors; a head with activation=swiglu"),
    (HeadSpec(), denoise_args(SWIGLU)[3], "weights[12] (res_blocks.0.mlp.2.weight) has shape"),
    (replace(SWIGLU, bias=False), denoise_args(SWIGLU)[3], "weights has 44 tensors"),
    (replace(SWIGLU, order="scale shift gate"), denoise_args(SWIGLU)[3], ""),
]


@pytest.mark.parametrize(("spec", "weights", "message"), ERRORS)
def test_weights_that_do_not_fit_a_spec_are_named(spec: HeadSpec, weights: Any, message: str):
    x, t, cond, *_ = denoise_args(SWIGLU)
    if not message:  # names nothing of its own: the same tensors in another order
        assert ops.denoise(x, t, cond, weights, None, str(spec)).shape == x.shape
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.denoise(x, t, cond, weights, None, str(spec))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("norm=batch", "a head's norm is 'batch'; allowed: layer, rms, std"),
        ("colour=red", "a head's spec has no choice 'colour'; known are norm, affine"),
        ("share=0", "a head's share is 0; allowed: numbers from 1"),
        ("share=two", "a head's share is 'two'; allowed: whole numbers"),
        ("bias=no", "a head's bias is 'no'; allowed: True or False"),
        ("eps=nan", "a head's eps is nan; allowed: finite numbers"),
        ("order=shift scale", "a head's order is 'shift scale'; allowed: shift, scale and gate"),
    ],
)
def test_a_choice_that_is_not_allowed_is_named(text: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.denoise(*denoise_args(HeadSpec())[:-1], text)


def test_a_specs_text_is_itself():
    assert str(HeadSpec()) == ""
    for spec in SPECS:
        assert HeadSpec.of(str(spec)) == spec


@pytest.mark.parametrize(
    ("rows", "guidance", "message"),
    [
        (7, torch.ones(1), "cond has 7 rows; it must have N = 3, or 2N = 6 or 3N = 9"),
        (12, torch.ones(1), "cond has 12 rows"),
        (9, torch.ones(1), "guidance has shape [1]; it must be [1, 2]"),
        (9, torch.ones(3), "guidance has shape [3]; it must be [1, 2]"),
    ],
)
def test_guidance_of_three_branches_has_two_scales(rows: int, guidance: Tensor, message: str):
    shape = HeadShape(4, 5, 8, 1, 6, 8)
    table = create_diffusion("4").sampling_schedule()
    weights = drawn_weights(HeadSpec(), shape)
    args = (torch.ones(3, 4), torch.ones(4, 3, 4), torch.ones(rows, 5), weights, *table, guidance)
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.ddpm_sample(*args)


def test_a_head_without_variance_has_no_range():
    shape = HeadShape(4, 5, 8, 1, 6, 8)
    weights = drawn_weights(HeadSpec(variance=False), shape)
    table = create_diffusion("4").sampling_schedule()
    rest = (torch.ones(3, 5), weights, *table, torch.ones(1))
    with pytest.raises(ValueError, match="learned_range: it is True, but a head without variance"):
        ops.ddpm_sample(torch.ones(3, 4), torch.ones(4, 3, 4), *rest, spec="variance=False")


def test_gradients_and_opcheck():
    spec = SPECS[-2]
    x, t, cond, weights, *rest = denoise_args(spec, 2, width=6, depth=2)
    floats = [value.double().requires_grad_() for value in (x, cond, *weights)]
    assert torch.autograd.gradcheck(
        lambda x, cond, *weights: ops.denoise(x, t, cond, weights, *rest), floats
    )
    overload = torch.ops.marfast.denoise.default
    args = (floats[0], t, floats[1], floats[2:], *rest)
    torch.library.opcheck(overload, args, test_utils=("test_schema", "test_faketensor"))
