"""Samplers as tables, run by the ops: against float64 loops that know of no table."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from marfast.reference import create_diffusion
from marfast.reference.diffusion import GaussianDiffusion
from marfast.reference.respacing import sampling_timesteps
from marfast.reference.samplers import (
    SAMPLERS,
    Table,
    ddim,
    diffusion_levels,
    dpm_solver,
    euler_maruyama,
    flow_levels,
    table_of,
)
from tests.helpers import assert_as_accurate, assert_bitwise_equal, on_every_isa
from tests.ops import sampler_loops as loops
from tests.ops.heads import sample_inputs, sampler_inputs

N, C, S, GUIDANCE = 7, 16, 9, 2.5
NEAR = 1e-6  # float32's rounding, and that of its coefficients, over a whole loop

Output = Callable[[Tensor, float], Tensor]

generator = torch.Generator().manual_seed(0)
START = torch.randn(N, C, generator=generator).double()
NOISE = torch.randn(S, N, C, generator=generator).double()
MIXES = torch.randn(2, C, C, generator=generator).double() * 0.3 / math.sqrt(C)
TIMES = sorted(sampling_timesteps(S, "ddim"), reverse=True)
FLOW = [i / S for i in range(S + 1)]
LEVELS = diffusion_levels(GaussianDiffusion(TIMES))


def branch(mix: Tensor) -> Output:
    """What a head predicts of x_0 or as a velocity: smooth, and far from constant."""
    return lambda x, t: torch.tanh(x @ mix + (t / 1000 if t > 1 else t))


def guided(branches: list[Output]) -> Output:
    conditional, *rest = branches
    if not rest:
        return conditional
    return lambda x, t: rest[0](x, t) + GUIDANCE * (conditional(x, t) - rest[0](x, t))


def as_output(x0: Output, prediction: str) -> Output:
    """The head that predicts this x_0 in another way."""

    def output(x: Tensor, t: float) -> Tensor:
        alpha, sigma = math.sqrt(loops.alpha_bar(int(t))), math.sqrt(1 - loops.alpha_bar(int(t)))
        if prediction == "epsilon":
            return (x - alpha * x0(x, t)) / sigma
        return (alpha * x - x0(x, t)) / sigma if prediction == "v" else x0(x, t)

    return output


def by_steps(table: Table, branches: list[Output], width: int = C) -> Tensor:
    """The loop of `ops.ddpm_step`; outputs are `width` wide: beyond C anything may stand."""
    x = START.float()
    state = torch.stack([x, torch.full_like(x, 1e3)]) if table.multistep else x
    times = table.timesteps.tolist()
    for row, t, noise in zip(table.coefficients, times, NOISE.float(), strict=True):
        now = state[0] if table.multistep else state
        output = torch.cat([b(now.double(), t).float() for b in branches])
        output = torch.cat([output, torch.full((len(output), width - C), math.nan)], dim=1)
        scale = torch.tensor([GUIDANCE])
        state = ops.ddpm_step(state, output, noise, row, scale, learned_range=table.learned_range)
    return (state[0] if table.multistep else state).double()


def apart(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


VP: dict[str, tuple[Callable[[Any], Table], Callable[[Output], Tensor]]] = {
    "ddim": (
        lambda p: ddim(LEVELS, 0.0, p),
        lambda h: loops.ddim(h, START, NOISE, TIMES, 0.0),
    ),
    "ddim, eta 0.4": (
        lambda p: ddim(LEVELS, 0.4, p),
        lambda h: loops.ddim(h, START, NOISE, TIMES, 0.4),
    ),
    "ddim, eta 1": (
        lambda p: ddim(LEVELS, 1.0, p),
        lambda h: loops.ddim(h, START, NOISE, TIMES, 1.0),
    ),
    "dpm++2m": (
        lambda p: dpm_solver(LEVELS, False, p),
        lambda h: loops.dpm_solver(h, START, NOISE, TIMES, False),
    ),
    "dpm++2m-sde": (
        lambda p: dpm_solver(LEVELS, True, p),
        lambda h: loops.dpm_solver(h, START, NOISE, TIMES, True),
    ),
}


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("name", VP)
def test_a_diffusions_samplers_are_their_papers(name: str, prediction: str, branches: int, isa):
    table, loop = VP[name]
    heads = [branch(mix) for mix in MIXES[:branches]]
    outputs = [as_output(head, prediction) for head in heads]
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = by_steps(table(prediction), outputs)
    assert apart(actual, loop(guided(heads))) <= NEAR


@pytest.mark.parametrize("branches", [1, 2])
def test_a_flows_samplers_are_their_papers(branches: int, isa):
    velocities = [branch(mix) for mix in MIXES[:branches]]
    v = guided(velocities)
    levels = flow_levels(FLOW)
    euler, em = ddim(levels, prediction="velocity"), euler_maruyama(levels)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        assert apart(by_steps(euler, velocities), loops.euler(v, START, NOISE, FLOW)) <= NEAR
        actual = by_steps(em, velocities)
    assert apart(actual, loops.euler_maruyama(v, START, NOISE, FLOW)) <= NEAR


def test_a_flows_timesteps_may_be_scaled_and_uneven():
    levels = flow_levels([0.0, 0.1, 0.5, 1.0], time_scale=1000)
    assert levels.timesteps.tolist() == [0, 100, 500]
    x = START.float()
    for row, t in zip(ddim(levels, prediction="velocity").coefficients, (0, 0.1, 0.5), strict=True):
        v = branch(MIXES[0])(x.double(), t).float()
        x = ops.ddpm_step(x, v, x, row, torch.ones(1), learned_range=False)
    assert apart(x.double(), loops.euler(branch(MIXES[0]), START, NOISE, [0, 0.1, 0.5, 1])) <= NEAR


def test_a_one_step_heads_table_gives_its_x0():
    """A flow from noise to data in one step (LSD, mean flows): x + v."""
    table = ddim(flow_levels([0.0, 1.0]), prediction="velocity")
    x, v = START.float(), torch.tanh(START.float())
    actual = ops.ddpm_step(x, v, x, table.coefficients[0], torch.ones(1), learned_range=False)
    assert_bitwise_equal(actual, x + v)


@pytest.mark.parametrize("width", [C, 2 * C])
def test_other_samplers_leave_the_variance_alone(width: int):
    """ε are the first C columns, however many C are, and v is not read: it is NaN here."""
    table, loop = VP["ddim"]
    head = branch(MIXES[0])
    actual = by_steps(table("epsilon"), [as_output(head, "epsilon")], width)
    assert apart(actual, loop(head)) <= NEAR


def test_clipping_reaches_every_sampler():
    head = guided([branch(mix) for mix in 20 * MIXES])
    table, loop = VP["dpm++2m"]
    outputs = [as_output(head, "epsilon")]
    expected = loop(lambda x, t: head(x, t).clamp(-1, 1))
    x = START.float()
    state = torch.stack([x, x])
    rows = table("epsilon")
    for row, t, noise in zip(rows.coefficients, TIMES, NOISE.float(), strict=True):
        output = outputs[0](state[0].double(), t).float()
        state = ops.ddpm_step(state, output, noise, row, torch.ones(1), 1.0, True, False)
    assert apart(state[0].double(), expected) <= 10 * NEAR  # the head is 20 times steeper
    assert (expected.abs() == 1).any()


@pytest.mark.parametrize("name", VP)
@pytest.mark.parametrize("quantile", [0.995, 1.0, 0.6])
def test_dynamic_thresholds_reach_every_sampler(name: str, quantile: float, isa):
    own = guided([branch(mix) for mix in MIXES])
    table, loop = VP[name]
    rows, x = table("x0"), START.float()

    def head(x: Tensor, t: float) -> Tensor:
        return 4 * own(x, t)

    state = torch.stack([x, x]) if rows.multistep else x
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        for row, t, noise in zip(rows.coefficients, TIMES, NOISE.float(), strict=True):
            output = head((state[0] if rows.multistep else state).double(), t).float()
            options = {"learned_range": False, "dynamic_threshold": quantile}
            state = ops.ddpm_step(state, output, noise, row, torch.ones(1), **options)
    actual = (state[0] if rows.multistep else state).double()
    limited = loop(loops.thresholded(head, quantile))
    assert apart(actual, limited) <= NEAR
    assert apart(loop(head), limited) > 0.1


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("channels", [0, 1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("quantile", [0.995, 1.0, 0.3])
def test_a_threshold_has_the_references_bits(channels: int, quantile: float, isa):
    generator = torch.Generator().manual_seed(channels)
    x, output, noise = 4 * torch.randn(3, 5, channels, generator=generator)
    x[0, :1], x[1, -1:], output[2] = math.nan, math.inf, 0.0
    x[2] *= 1e-3  # less than 1 throughout: not limited
    row = ddim(LEVELS, 0.4).coefficients[4]
    args = (x, output, noise, row, torch.ones(1), 0.9, False, False, quantile)
    with cpu.cpu_isa(isa), ops.backend("cpu"):
        actual = ops.ddpm_step(*args)
    assert_bitwise_equal(actual, ops.ddpm_step.plain(*args))


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_a_whole_sample_takes_a_threshold(backend: Any):
    args = sampler_inputs("dpm++2m-sde", clip=False, seed=3)
    exact = tuple(
        [w.double() for w in a] if isinstance(a, list)
        else a.double() if isinstance(a, Tensor) and a.is_floating_point() else a
        for a in args
    )  # fmt: skip
    expected = ops.ddpm_sample.plain(*exact, dynamic_threshold=0.9)
    with ops.backend(backend):
        actual = ops.ddpm_sample(*args, dynamic_threshold=0.9)
    assert apart(actual.double(), expected) <= 1e-4
    assert apart(ops.ddpm_sample.plain(*exact), expected) > 1e-2
    assert actual[1].abs().max() <= 1


@pytest.mark.parametrize("op", ["ddpm_step", "ddpm_sample"])
def test_cudas_kernels_say_that_they_sort_nothing(op: str):
    backend = importlib.import_module(f"marfast.ops.{op}.cuda")
    a = OPS[op].example_args()
    assert backend.can_run(a) == (True, "")
    ok, reason = backend.can_run(a._replace(clip_denoised=False, dynamic_threshold=0.9))
    assert not ok
    assert reason.startswith("x_0 is limited by a quantile of itself; the kernel clips")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic_threshold": 1.5}, r"dynamic_threshold is 1\.5; it must be a quantile, from 0"),
        ({"dynamic_threshold": -0.1}, r"dynamic_threshold is -0\.1; it must be a quantile"),
        ({"dynamic_threshold": math.nan}, r"dynamic_threshold is nan; it must be a quantile"),
        (
            {"dynamic_threshold": 0.9, "clip_denoised": True},
            r"dynamic_threshold is 0\.9 and clip_denoised True; x_0 is limited by one or the other",
        ),
    ],
)
@pytest.mark.parametrize("op", ["ddpm_step", "ddpm_sample"])
def test_a_bad_threshold_is_named(op: str, options: dict[str, Any], message: str):
    a = OPS[op].example_args(torch.float32)._replace(clip_denoised=False)._replace(**options)
    with pytest.raises(ValueError, match=message):
        OPS[op](*a)


def test_temperature_scales_what_noise_there_is():
    row = table_of(create_diffusion("10"), "ddim", 1.0).coefficients[2]
    x, output = START.float(), torch.tanh(START.float())

    def step(temperature: float) -> Tensor:
        return ops.ddpm_step(x, output, x, row, torch.ones(1), temperature, False, False)

    assert_bitwise_equal(
        step(0.0), ops.ddpm_step(x, output, x * 0, row, torch.ones(1), 1.0, False, False)
    )
    assert not torch.equal(step(0.5), step(1.0))


@pytest.mark.usefixtures("needs_native", "guarded_outputs")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("sizes", [{}, {"guided": False, "tokens": 130, "width": 17}], ids=str)
def test_a_whole_sample_is_the_loop_of_denoise_and_ddpm_step(sampler: str, sizes: Any):
    args = sampler_inputs(sampler, eta=0.5 * (sampler == "ddim"), **sizes)
    state, step_noise, cond, weights, schedule, timesteps, scales, *options, _, learned = args
    results = on_every_isa(ops.ddpm_sample, *args)
    for isa, actual in results.items():
        assert_bitwise_equal(actual, results["portable"], isa)
    for s, (t, row, noise) in enumerate(zip(timesteps, schedule, step_noise, strict=True)):
        now = state[0] if state.dim() == 3 else state
        rows = now.repeat(len(cond) // len(now), 1)
        output = ops.denoise(rows, t.expand(len(rows)), cond, weights)
        state = ops.ddpm_step(state, output, noise, row, scales[s : s + 1], *options, learned)
    assert_bitwise_equal(results["portable"], state)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m-sde"])
def test_steps_may_be_taken_in_several_calls(sampler: str):
    state, step_noise, cond, weights, schedule, timesteps, scales, *rest = args = sampler_inputs(
        sampler
    )
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        of_part = (a[part] for a in (step_noise, schedule, timesteps, scales))
        noise, rows, times, scale = of_part
        state = ops.ddpm_sample(state, noise, cond, weights, rows, times, scale, *rest)
    assert_bitwise_equal(state, ops.ddpm_sample(*args))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("sampler", SAMPLERS[1:])
def test_error_against_float64(sampler: str, isa):
    def plain(noise: Tensor, step_noise: Tensor, cond: Tensor, weights: Any, *rest: Any) -> Tensor:
        weights = [weight.to(noise.dtype) for weight in weights]
        return ops.ddpm_sample.plain(noise, step_noise, cond, weights, *rest)

    cases = [sampler_inputs(sampler, steps=8, tokens=5, width=64, seed=seed) for seed in range(8)]
    with cpu.cpu_isa(isa):
        assert_as_accurate(ops.ddpm_sample, plain, cases)


def test_a_flow_tells_the_head_fractional_times():
    noise, step_noise, cond, weights, *_ = sample_inputs(steps=3, guided=False)
    table = ddim(flow_levels([0.0, 0.25, 0.5, 1.0]), prediction="velocity")
    assert table.timesteps.dtype == torch.float32
    rest = (table.coefficients, table.timesteps, torch.ones(1), 1.0, False, None, False)
    actual = ops.ddpm_sample(noise, step_noise, cond, weights, *rest)
    other = (table.coefficients, table.timesteps.long(), *rest[2:])
    assert not torch.equal(actual, ops.ddpm_sample(noise, step_noise, cond, weights, *other))


@pytest.mark.parametrize("multistep", [False, True])
def test_opcheck_and_gradients(multistep: bool):
    x = START[:3, :4].clone()
    state = torch.stack([x, x + 1]) if multistep else x
    row = table_of(create_diffusion("8"), "dpm++2m-sde").coefficients[3].double()
    args = (state, x.tanh(), x.cos(), row, torch.ones(1).double())
    single = [a.float() for a in args]
    torch.library.opcheck(torch.ops.marfast.ddpm_step.default, (*single, 0.9, False, False))
    args = [a.requires_grad_() for a in args]

    def step(*tensors: Tensor) -> Tensor:
        return ops.ddpm_step(*tensors, 0.9, False, False)

    assert torch.autograd.gradcheck(step, args)


@pytest.mark.parametrize(
    ("output", "learned", "message"),
    [
        (torch.zeros(N, C), True, "model_output has shape [7, 16]; it must be [R, 2C]"),
        (torch.zeros(N, C + 1), False, "model_output has shape [7, 17]; it must be [R, 2C]"),
    ],
)
def test_a_wrong_width_is_named(output: Tensor, learned: bool, message: str):
    x = START.float()
    with pytest.raises(ValueError, match=r"model_output has shape") as error:
        ops.ddpm_step(x, output, x, torch.zeros(8), torch.ones(1), learned_range=learned)
    assert message in str(error.value)
