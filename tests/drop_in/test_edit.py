"""`marfast.edit`: somebody else's MAR, accelerated or not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marfast
from marfast.drop_in.install import installed
from marfast.generation.graphs import Graphs
from marfast.reference import MAR
from tests.drop_in.test_accelerate import LABELS
from tests.generation.recorder import Recorder
from tests.generation.test_edit import images, masks
from tests.generation.test_generate import global_state, seed_all
from tests.models import LATENT, TINY, tiny_pipeline, tiny_weights


@pytest.fixture
def module() -> MAR:
    built = TINY.build(steps="4", clip_denoised=True)
    built.load_state_dict(tiny_weights(), assign=True)
    return built


OPTIONS: list[dict[str, Any]] = [
    {"num_iter": 5},
    {"num_iter": 3, "cfg": torch.tensor([2.5]), "labels": LABELS},
    {"num_iter": 16, "cfg": 3.0, "cfg_schedule": "constant", "temperature": 0.8},
]


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_all_unknown_is_sample_tokens(
    module: MAR, options: dict[str, Any], accelerated: bool
) -> None:
    seed_all(5)
    expected, state = module.sample_tokens(3, **options), global_state()
    if accelerated:
        marfast.accelerate(module, backend="reference")
    with marfast.backend("reference"):
        seed_all(5)
        made = marfast.edit(module, images(), torch.ones(3, 16), **options)
    assert torch.equal(made, expected)
    assert global_state() == state


def test_none_unknown_is_the_input_and_draws_nothing(module: MAR) -> None:
    given, before = images(), global_state()
    assert torch.equal(marfast.edit(module, given, torch.zeros(3, 16), LABELS), given)
    assert global_state() == before


@pytest.mark.parametrize("accelerated", [False, True])
def test_an_edit_is_the_pipelines(module: MAR, accelerated: bool) -> None:
    given, mask = images(), masks(5, 0, 9)
    options = {"num_iter": 4, "cfg": 2.0}
    expected = tiny_pipeline().edit(given, mask, LABELS, seed=3, **options)
    if accelerated:
        marfast.accelerate(module)
    for form in (mask, mask[:, None], mask[:, ::4, ::4], mask[:, ::4, ::4].flatten(1)):
        seed_all(3)
        made = marfast.edit(module, given, form, LABELS, **options)
        torch.testing.assert_close(made.clamp(-1, 1), expected, rtol=0, atol=1e-5)
        assert torch.equal(made[~mask[:, None]], given[~mask[:, None]])
    seed_all(3)
    tokens = marfast.edit(module, module.patchify(given), mask[:, ::4, ::4], LABELS, **options)
    assert torch.equal(module.unpatchify(tokens), made)


def test_latents_stay_in_their_range() -> None:
    module = LATENT.build(steps="4")
    module.load_state_dict(tiny_weights(LATENT), assign=True)
    given = 5 * images(2, shape=(4, 4, 4))
    mask = torch.zeros(2, 4, 4)
    mask[:, 1:3, 1:3] = 1
    before = given.clone()
    made = marfast.edit(module, given, mask, num_iter=2, progress=True)
    assert torch.equal(given, before)
    inside = (mask != 0)[:, None].expand_as(given)
    assert torch.equal(made[~inside], given[~inside])
    assert (made[inside] != given[inside]).all()


def test_an_accelerated_module_replays_graphs_of_edits(module: MAR) -> None:
    marfast.accelerate(module)
    recorder, given, mask = Recorder(), images(), masks(9, 9, 9)

    def run() -> Tensor:
        seed_all(3)
        return marfast.edit(module, given, mask, LABELS, num_iter=3)

    expected = run()
    method: Any = installed(module)["sample_tokens"]
    method.kept.graphs = Graphs(recorder)
    assert marfast.warmup(module, batch=3, unknown=9, num_iter=3).graphs == 3 + 3
    # The recorder's own randomness follows the device's generator, which here is the CPU's.
    assert run().shape == expected.shape
    assert sum(graph.replays for graph in recorder.made) == 6


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"module": nn.Linear(2, 2)}, TypeError, "module: Linear is no MAR (it lacks class_emb"),
        ({"tokens": images()[:, :, :12]}, ValueError, "tokens: shape [3, 1, 12, 16]; allowed are"),
        ({"tokens": images(0)}, ValueError, "tokens: none given"),
        ({"tokens": images() / 0}, ValueError, "tokens: NaN or infinite values"),
        ({"mask": torch.ones(3, 15)}, ValueError, "mask: shape [3, 15]; allowed are [3, 16] or"),
        ({"labels": [1, 10, 2]}, ValueError, "labels: 10; allowed are 0 to 9, or None"),
        ({"labels": [1]}, ValueError, "labels: 1 labels for 3 images"),
        ({"num_iter": 17}, ValueError, "num_iter: 17; allowed are 1 to 16"),
        ({"cfg_schedule": "cosine"}, ValueError, "cfg_schedule: 'cosine'"),
        ({"temperature": "hot"}, ValueError, "temperature: 'hot'"),
        ({"sampler": "ddim"}, ValueError, "sampler: 'ddim'; it is told by marfast.accelerate"),
        ({"steps": 5}, ValueError, "steps: 5; it is told by marfast.accelerate"),
        ({"clip_denoised": True}, ValueError, "clip_denoised: True; it is told by the module, as"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(
    module: MAR, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    before = global_state()
    arguments = {"module": module, "tokens": images(), "mask": torch.ones(3, 16)} | change
    with pytest.raises(error) as raised:
        marfast.edit(**arguments)
    assert str(raised.value).startswith(said)
    assert global_state() == before


def test_a_module_that_is_trained_or_another_is_refused(module: MAR) -> None:
    given = images(), torch.ones(3, 16)
    with pytest.raises(ValueError, match="module: it is in training mode; call its eval"):
        marfast.edit(module.train(), *given)
    module.eval().diffloss.net.forward = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(TypeError, match=r"its own code would have to run: its diffloss.net"):
        marfast.edit(module, *given)
