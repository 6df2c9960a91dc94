"""Models whose head isn't MAR's: same tokens and draws, or the module's own code and why."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.drop_in.find import Finding
from marfast.errors import ArgumentError
from tests.drop_in.heads.lookalikes.ming_univision import Ming
from tests.drop_in.heads.lookalikes.nextstep import NextStep, OmniNextStep
from tests.drop_in.heads.lookalikes.parts import C, D, made
from tests.drop_in.heads.lookalikes.pocket_tts import Pocket
from tests.drop_in.heads.lookalikes.sphere_ar import BitDance, Sphere
from tests.drop_in.heads.lookalikes.vibevoice import Vibe
from tests.drop_in.test_habits import assert_same
from tests.helpers import assert_bitwise_equal

Call = Callable[[Any], Tensor]


def rows(module: nn.Module, count: int, seed: int = 0) -> Tensor:
    """Conditions that bfloat16 has, in the module's dtype."""
    drawn = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().to(next(module.parameters()).dtype)


def pocket(module: Any) -> Tensor:
    cond = rows(module, 3)
    times = [torch.randint(9, (3, 1)).to(cond) / 8 for _ in module.time_embed]
    return module(cond, *times, torch.randn(3, C).bfloat16().to(cond))


CALLS: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "nextstep": (NextStep, lambda m: m.sample(rows(m, 4), num_sampling_steps=5)),
    "nextstep, guided": (NextStep, lambda m: m.sample(rows(m, 8), 3.0, 1.0, 2.0, 5, 0.1)),
    "nextstep, three branches": (
        NextStep,
        lambda m: m.sample(rows(m, 12), 3.0, 1.5, 1.0, 6, 0.04, 2),
    ),
    "nextstep-vllm": (OmniNextStep, lambda m: m.sample(rows(m, 4), num_sampling_steps=5)),
    "nextstep-vllm, three": (OmniNextStep, lambda m: m.sample(rows(m, 6), 3.0, 1.5, None, 1.5, 4)),
    "nextstep-vllm, by number": (OmniNextStep, lambda m: m.sample(rows(m, 6), 0.9, 1.0, 3, 1.5, 4)),
    "sphere-ar": (Sphere, lambda m: m.sample(rows(m, 3), 1.0, 7)),
    "sphere-ar, guided": (Sphere, lambda m: m.sample(rows(m, 6), 4.0, 7)),
    "bitdance": (BitDance, lambda m: m.sample(rows(m, 3), 1.0, 9)),
    "bitdance, guided": (BitDance, lambda m: m.sample(rows(m, 6), 4.0, 9)),
    "ming-univision": (Ming, lambda m: m.sample(rows(m, 2), 0.8, 3.0)),
    "ming-univision, three": (Ming, lambda m: m.sample(rows(m, 3), 1.0, 3.0, 1.5, None, 2.0)),
    "pocket-tts": (Pocket, pocket),
    "pocket-tts, one time": (lambda: Pocket(1), pocket),
    "vibevoice": (Vibe, lambda m: m.sample_speech_tokens(rows(m, 3), rows(m, 3, 1), 1.5)),
    "vibevoice, SDE": (
        lambda: Vibe(True),
        lambda m: m.sample_speech_tokens(rows(m, 3), rows(m, 3, 1)),
    ),
}


def seeded(call: Call, module: Any) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    with torch.no_grad():
        return call(module), torch.get_rng_state()


def left(module: nn.Module) -> dict[str, str]:
    return {f"{f.path}.{f.method}".lstrip("."): f.left for f in marfast.findings(module) if f.left}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("kind", "call"), CALLS.values(), ids=CALLS)
def test_same_tokens_and_draws(kind: Callable[[], nn.Module], call: Call) -> None:
    module = made(kind)
    expected, state = seeded(call, module)
    before = {name: dict(part.__dict__) for name, part in module.named_modules()}
    for _ in range(2):
        actual, after = seeded(call, marfast.accelerate(module))
        assert actual.dtype == expected.dtype
        assert_same(actual, expected)
        assert not torch.equal(actual, expected)  # by the ops
        assert torch.equal(after, state)
        assert not left(module)
    marfast.restore(module)
    assert {name: part.__dict__.keys() for name, part in module.named_modules()} == {
        name: attributes.keys() for name, attributes in before.items()
    }
    assert_bitwise_equal(seeded(call, module)[0], expected)


@pytest.mark.parametrize(("kind", "call"), CALLS.values(), ids=CALLS)
def test_weights_may_change_and_copies_go_on(kind: Callable[[], nn.Module], call: Call) -> None:
    module = marfast.accelerate(made(kind))
    seeded(call, module)
    for parameter in module.parameters():
        parameter.data.mul_(0.5)
    expected, _ = seeded(call, marfast.restore(copy.deepcopy(module)))
    assert_same(seeded(call, module)[0], expected)
    assert_same(seeded(call, copy.deepcopy(module))[0], expected)


@pytest.mark.parametrize(("kind", "call"), CALLS.values(), ids=CALLS)
def test_training_mode_and_gradients_are_the_modules_own(
    kind: Callable[[], nn.Module], call: Call
) -> None:
    module = made(kind).train()
    expected, _ = seeded(call, module)
    assert_bitwise_equal(seeded(call, marfast.accelerate(module))[0], expected)


class Sharper(NextStep):
    def sample(self, c, cfg=1.0, cfg2=1.0, timesteps_shift=1.0, num_sampling_steps=20,
               last_step_size=0.04, noise_repeat=1):  # fmt: skip
        steps = (timesteps_shift, num_sampling_steps, last_step_size, noise_repeat)
        return super().sample(c, 1.1 * cfg, cfg2, *steps)


class DrawsMore(Sphere):
    def sample(self, z, cfg, num_sampling_steps):
        tokens = super().sample(z, cfg, num_sampling_steps)
        torch.rand(1)
        return tokens


class Renamed(Ming):
    def sample(self, z, temperature=1.0, text_cfg=1.0):
        return super().sample(z, temperature, text_cfg)


@pytest.mark.parametrize(
    ("kind", "call", "where", "reason"),
    [
        (Sharper, CALLS["nextstep, guided"][1], "sample", "it computes something else"),
        (DrawsMore, CALLS["sphere-ar"][1], "sample", "it draws other random numbers"),
    ],
)
def test_what_does_not_agree_keeps_its_own_code(
    kind: Callable[[], nn.Module], call: Call, where: str, reason: str
) -> None:
    module = made(kind)
    expected, state = seeded(call, module)
    marfast.accelerate(module)
    with pytest.warns(RuntimeWarning, match=reason):
        actual, after = seeded(call, module)
    assert_same(actual, expected)
    assert torch.equal(after, state)
    assert left(module)[where].startswith(reason)


def test_another_loop_over_a_known_head_has_it_fast() -> None:
    module = marfast.accelerate(made(Renamed))
    assert marfast.findings(module) == [Finding("net", "forward", "")]


def test_guidance_renormalised_is_the_modules_own_loop_over_the_fast_head() -> None:
    def call(module: Any) -> Tensor:
        return module.sample(rows(module, 3), 1.0, 3.0, 1.5, "channel")

    module = made(Ming)
    expected, state = seeded(call, module)
    actual, after = seeded(call, marfast.accelerate(module))
    assert_same(actual, expected)
    assert not torch.equal(actual, expected)  # the head is fast
    assert torch.equal(after, state)
    assert left(module) == {"sample": "calls with renormalised guidance run its own code"}
    seeded(CALLS["ming-univision"][1], module)
    marfast.refresh(module)
    assert not left(module)


@pytest.mark.parametrize(
    ("name", "call", "way"),
    [
        ("nextstep", lambda m: m.sample(rows(m, 4), 1.0, 2.0), "cfg2 but no cfg"),
        ("nextstep", lambda m: m.sample(rows(m, 4), num_sampling_steps=1), "fewer than 2 steps"),
        ("ming-univision", lambda m: m.sample(rows(m, 3)), "no guidance"),
    ],
)
def test_findings_name_the_calls_that_are_left(name: str, call: Call, way: str) -> None:
    kind, usual = CALLS[name]
    module = marfast.accelerate(made(kind))
    seeded(usual, module)
    assert not left(module)
    seeded(call, module)
    assert left(module) == {"sample": f"calls with {way} run its own code"}


def test_a_head_that_is_told_no_time_is_left() -> None:
    module = made(Pocket, 0)
    with pytest.warns(RuntimeWarning, match="nothing was made fast: forward: .* told no time"):
        marfast.accelerate(module)


@pytest.mark.parametrize("name", ["nextstep, three branches", "nextstep-vllm", "pocket-tts"])
def test_half_precision_is_no_further_off_than_the_modules_own(name: str) -> None:
    kind, call = CALLS[name]
    module = made(kind).bfloat16()
    theirs, state = seeded(call, module)
    exact, _ = seeded(call, copy.deepcopy(module).double())
    ours, after = seeded(call, marfast.accelerate(module))
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(after, state)
    assert (ours - exact).norm() <= 2 * (theirs - exact).norm()


def test_in_float64_tokens_are_the_modules_own() -> None:
    kind, call = CALLS["nextstep, three branches"]
    module = made(kind).double()
    expected, _ = seeded(call, module)
    actual, _ = seeded(call, marfast.accelerate(module))
    assert actual.dtype == expected.dtype
    assert_same(actual, expected)
    assert not left(module)


def test_another_sampler_is_refused_before_anything_is_replaced() -> None:
    module = made(NextStep)
    with pytest.raises(ArgumentError, match=r"sampler: .*NextStep.sample; allowed is None"):
        marfast.accelerate(module, sampler="ddim")
    assert type(module) is NextStep


def test_a_hook_in_the_head_runs() -> None:
    module = marfast.accelerate(made(Sphere))
    seen: list[int] = []
    module.net.res_blocks[0].register_forward_hook(lambda *_: seen.append(1))
    seeded(CALLS["sphere-ar"][1], module)
    assert len(seen) == 8


def test_a_pickled_one_goes_on() -> None:
    kind, call = CALLS["vibevoice"]
    module = marfast.accelerate(made(kind))
    expected, _ = seeded(call, module)
    assert_bitwise_equal(seeded(call, pickle.loads(pickle.dumps(module)))[0], expected)


def test_a_schedulers_steps_and_kind_may_change() -> None:
    _, call = CALLS["vibevoice"]
    module = marfast.accelerate(made(Vibe))
    seeded(call, module)
    for stochastic, steps in ((True, 6), (True, 9), (False, 4)):
        scheduler = module.model.noise_scheduler
        scheduler.stochastic = stochastic
        scheduler.config["algorithm_type"] = "sde-dpmsolver++" if stochastic else "dpmsolver++"
        module.ddpm_inference_steps = steps
        expected, state = seeded(call, marfast.restore(copy.deepcopy(module)))
        actual, after = seeded(call, module)
        assert_same(actual, expected)
        assert torch.equal(after, state)
        assert not left(module)
