"""`generate` against `reference.MAR.sample_tokens`, and what it promises about seeds and parts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import marfast
from marfast.checkpoints import Settings
from marfast.generation import sample_tokens
from marfast.generation.randomness import BatchRandomness, Generators, randomness_of_parts
from marfast.model import FastMAR, head, packing
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate
from tests.models import TINY, tiny_pipeline, tiny_weights

LABELS = [3, 1, 4, 1, 5]
CPU = torch.device("cpu")


def seed_all(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, keys.tobytes(), *rest, torch.get_rng_state().numpy().tobytes())


def from_reference(pipeline: marfast.generation.Pipeline, labels: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        images = pipeline.model.module.sample_tokens(len(LABELS), labels=labels, **options)
    return images.clamp(-1, 1)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@pytest.mark.parametrize("cfg_schedule", ["linear", "constant"])
@pytest.mark.parametrize("num_iter", [1, 2, 7, 16])
def test_equals_sample_tokens_of_the_whole_batch(
    cfg: float, cfg_schedule: str, num_iter: int
) -> None:
    pipeline = tiny_pipeline()
    seed_all(7)
    expected = from_reference(
        pipeline,
        torch.tensor(LABELS),
        num_iter=num_iter,
        cfg=cfg,
        cfg_schedule=cfg_schedule,
        temperature=0.9,
    )
    with marfast.backend("reference"):
        images = pipeline.generate(
            LABELS, seed=7, num_iter=num_iter, cfg=cfg, cfg_schedule=cfg_schedule, temperature=0.9
        )
    assert images.shape == (5, 1, 16, 16)
    assert images.std() > 0.1
    assert torch.equal(images, expected)


def test_unclipped_model_equals_sample_tokens() -> None:
    pipeline = tiny_pipeline(clip_denoised=False)
    seed_all(3)
    expected = from_reference(pipeline, torch.tensor(LABELS), num_iter=3, cfg=3.0)
    with marfast.backend("reference"):
        assert torch.equal(pipeline.generate(LABELS, seed=3, num_iter=3, cfg=3.0), expected)


def test_none_is_the_label_of_no_class() -> None:
    pipeline = tiny_pipeline()
    seed_all(1)
    expected = from_reference(pipeline, None, num_iter=4, cfg=2.0)
    with marfast.backend("reference"):
        images = pipeline.generate([None] * 5, seed=1, num_iter=4, cfg=2.0)
    assert torch.equal(images, expected)


def test_without_a_seed_the_global_generators_are_used_and_advance_alike() -> None:
    pipeline = tiny_pipeline()
    seed_all(5)
    expected = from_reference(pipeline, torch.tensor(LABELS), num_iter=4)
    state = global_state()
    seed_all(5)
    with marfast.backend("reference"):
        images = pipeline.generate(LABELS, num_iter=4, part=2)
    assert global_state() == state
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [0, [0, 1, 2, 3, 4]])
def test_a_seed_leaves_the_global_generators_alone(seed: Any) -> None:
    before = global_state()
    tiny_pipeline().generate(LABELS, seed=seed, num_iter=2)
    assert global_state() == before


@pytest.mark.parametrize("seed", [11, [5, 4, 3, 2, 1]])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_draw_the_rows_of_the_whole_batch(seed: Any, guided: bool, size: int) -> None:
    def draw(parts: list[range]) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            (r.orders(16), r.initial_noise(3, 7), r.step_noise(3, 7, 2, guided))
            for r in randomness_of_parts(seed, 5, parts, CPU)
        ]

    [(orders, initial, step_noise)] = draw([range(5)])
    parts = draw([range(i, min(i + size, 5)) for i in range(0, 5, size)])
    assert torch.equal(torch.cat([p[0] for p in parts]), orders)
    assert torch.equal(torch.cat([p[1] for p in parts]), initial)
    assert torch.equal(torch.cat([p[2] for p in parts], dim=1), step_noise)
    assert step_noise.shape == (2, 15, 7)


def test_parts_do_not_change_images() -> None:
    pipeline = tiny_pipeline()
    whole = pipeline.generate(LABELS, seed=2, cfg=2.0)
    seen: list[tuple[int, int]] = []
    split = pipeline.generate(LABELS, seed=2, cfg=2.0, part=2, progress=lambda *p: seen.append(p))
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-5)
    assert seen == [(i + 1, 15) for i in range(15)]


def test_a_seed_for_each_image_makes_it_independent_of_its_batch() -> None:
    pipeline = tiny_pipeline()
    batch = pipeline.generate([3, 1, 4], seed=[8, 9, 8], cfg=2.0)
    for i, (label, seed) in enumerate([(3, 8), (1, 9), (4, 8)]):
        alone = pipeline.generate(label, seed=seed, cfg=2.0)
        torch.testing.assert_close(batch[i : i + 1], alone, rtol=0, atol=1e-5)
    assert (batch[0] - batch[2]).abs().max() > 1e-3


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize(("cfg", "rows_of"), [(1.0, [3, 5, 5]), (2.0, [3, 10, 10])])
def test_rows_that_are_the_same_are_computed_once(
    cfg: float, rows_of: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, rows = tiny_pipeline(), list[int]()
    module, condition = pipeline.model.module, FastMAR.condition

    def counting(self: FastMAR, tokens: Tensor, *rest: Any) -> Tensor:
        rows.append(len(tokens))
        return condition(self, tokens, *rest)

    def images(*weights: Tensor) -> Tensor:
        module.load_state_dict(dict(zip(module.state_dict(), weights, strict=True)), assign=True)
        rows.clear()
        return pipeline.generate([3, 1, 3, None, 3], seed=2, cfg=cfg, num_iter=3)

    def each_computed(*weights: Tensor) -> Tensor:
        with marfast.backend("reference"):
            made = images(*weights)
        assert rows == [rows_of[-1]] * 3
        return made

    def shared(*weights: Tensor) -> Tensor:
        made = images(*weights)
        assert rows == rows_of
        return made

    monkeypatch.setattr(FastMAR, "condition", counting)
    cases = [tuple(tiny_weights(seed=seed).values()) for seed in range(8)]
    assert_as_accurate(shared, each_computed, cases)


def test_steps_respace_the_sampler() -> None:
    pipeline = tiny_pipeline(steps=4)
    images = pipeline.generate([1, 2], seed=0, steps=9)
    again = tiny_pipeline(steps=9).generate([1, 2], seed=0)
    assert torch.equal(images, again)
    assert not torch.equal(images, pipeline.generate([1, 2], seed=0))


def test_inference_mode() -> None:
    expected = tiny_pipeline().generate(LABELS, seed=0, cfg=2.0)
    with torch.inference_mode():
        images = tiny_pipeline().generate(LABELS, seed=0, cfg=2.0)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def test_whoever_takes_the_parts_keeps_gradients_on() -> None:
    for images in tiny_pipeline().generate_parts(LABELS, seed=0, part=2):
        assert torch.is_grad_enabled()
        assert not images.requires_grad


WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "bincount"),
}


class NoWaiting(TorchDispatchMode):
    """Fails on operators that search data or fetch it to the host, inside ops, too: there the
    reference runs, as it does on a device without kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        self.seen.add(name)
        assert name not in WAITING, name
        indices = args[1] if name in ("index", "index_put_") else []
        assert all(index is None or index.dtype == torch.int64 for index in indices), name
        if func.namespace != "marfast":
            return func(*args, **(kwargs or {}))
        op = OPS[name]
        with self:
            return op.plain(*args)


@pytest.mark.parametrize("cfg_schedule", ["linear", "constant"])
@pytest.mark.parametrize("seed", [0, [1, 2, 3, 4, 5]])
def test_the_loop_neither_searches_a_mask_nor_waits_for_data(
    cfg_schedule: str, seed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_pipeline()
    pipeline.model.update()  # its first use compares known answers
    with monkeypatch.context() as patched, NoWaiting() as watched:
        patched.setattr(packing._Fingerprint, "differs", lambda *_: False)  # a CPU's checksum
        images = pipeline.generate(LABELS, seed=seed, cfg=2.0, cfg_schedule=cfg_schedule)
    assert {"ddpm_sample", "exp"} <= watched.seen
    plain = pipeline.generate(LABELS, seed=seed, cfg=2.0, cfg_schedule=cfg_schedule)
    torch.testing.assert_close(images, plain, rtol=0, atol=1e-4)


def test_no_value_is_read_from_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which has none to read, the loop runs to its end."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # meta is no kind to it
    with torch.no_grad():
        module = TINY.build(steps="3").to("meta")
        model = FastMAR(module)
        monkeypatch.setattr(head, "_known_answer", lambda net, kind: "")
        model.update()
        labels = torch.zeros(2, dtype=torch.int64, device="meta")
        generators = Generators(np.random.RandomState(0), torch.Generator(), torch.Generator())
        randomness = BatchRandomness(generators, 2, range(2))
        settings = Settings(num_iter=4, cfg=3.0)
        tokens = sample_tokens(
            model, labels, randomness, settings, [model.schedule()] * settings.num_iter
        )
    assert (tokens.device.type, tuple(tokens.shape)) == ("meta", (2, 16, 16))


def test_whole_numbers_of_numpy_and_torch_are_taken() -> None:
    pipeline = tiny_pipeline()
    expected = pipeline.generate([3, 1], seed=[5, 6], num_iter=2, part=1)
    for labels in ([np.int64(3), torch.tensor(1)], np.array([3, 1]), torch.tensor([3, 1])):
        for seed in ([np.int64(5), torch.tensor(6)], np.array([5, 6]), torch.tensor([5, 6])):
            images = pipeline.generate(labels, seed=seed, num_iter=2, part=np.int64(1))
            assert torch.equal(images, expected)
    one = pipeline.generate(3, seed=5, num_iter=2)
    for three in (np.int64(3), np.array(3), torch.tensor(3)):
        assert torch.equal(pipeline.generate(three, seed=np.uint32(5), num_iter=2), one)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "device: cuda; there is no CUDA device here"),
        ("cuda:3", "device: cuda:3; there is no CUDA device here"),
        ("tpu", "device: 'tpu'; allowed are cpu, cuda and cuda:N"),
        ("cpu:x", "device: 'cpu:x'; allowed are cpu, cuda and cuda:N"),
        ("", "device: ''; allowed are cpu, cuda and cuda:N"),
    ],
)
def test_a_device_that_is_not_here_is_an_argument(
    device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError) as error:
        marfast.load("fashion-mnist", device=device)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("labels", [], "labels: none given"),
        ("labels", [10], "labels: 10; allowed are 0 to 9"),
        ("labels", [-1], "labels: -1"),
        ("labels", [1.5], "labels: 1.5"),
        ("labels", [True], "labels: True"),
        ("labels", 1.5, "labels: 1.5"),
        ("labels", "3", "labels: '3'"),
        ("labels", [np.True_], "labels: "),
        ("labels", torch.tensor([True]), "labels: True"),
        ("labels", np.array([1.0]), "labels: 1.0"),
        ("seed", np.array([1, 2, 3]), "seed: 3 seeds for 1 labels"),
        ("seed", np.float64(1), "seed: 1.0"),
        ("part", np.float64(1), "part: "),
        ("seed", -1, "seed: -1"),
        ("seed", 2**32, "seed: 4294967296"),
        ("seed", 1.0, "seed: 1.0"),
        ("seed", [1, 2, 3], "seed: 3 seeds for 1 labels"),
        ("num_iter", 0, "num_iter: 0"),
        ("num_iter", 17, "num_iter: 17; allowed are 1 to 16"),
        ("num_iter", 2.0, "num_iter: 2.0"),
        ("steps", 1, "steps: 1; allowed are 2 to 1000"),
        ("steps", 1001, "steps: 1001; allowed are 2 to 1000"),
        ("steps", "many", "steps: 'many'; allowed are 2 to 1000"),
        ("steps", "ddim7000", "steps: 'ddim7000'"),
        ("cfg", -1.0, "cfg: -1.0"),
        ("cfg", float("nan"), "cfg"),
        ("cfg_schedule", "cosine", "cfg_schedule: 'cosine'"),
        ("temperature", float("inf"), "temperature"),
        ("temperature", "hot", "temperature: 'hot'"),
        ("part", 0, "part: 0"),
    ],
)
def test_a_bad_argument_is_named_before_any_work(argument: str, value: Any, said: str) -> None:
    pipeline = tiny_pipeline()
    before = global_state()

    def progress(done: int, of: int) -> None:
        raise AssertionError("work began")

    options = {"labels": [1], "progress": progress} | {argument: value}
    with pytest.raises(ValueError) as error:
        pipeline.generate(**options)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert global_state() == before
