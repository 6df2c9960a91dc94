"""What is replaced computes what the module does; where it doesn't, the module's own code runs."""

import copy
import functools
import gc
import random
import threading
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import marfast
from marfast.drop_in.install import installed
from marfast.errors import ArgumentError
from marfast.ops import choice
from marfast.reference import MAR
from tests.drop_in.changes import (
    CHANGES,
    Change,
    DrawsMore,
    OtherGuidance,
    compiled_head,
    decoder_on_the_instance,
    flow,
    head_on_the_instance,
    loop_on_the_instance,
    other_classes,
    patched_process,
    pruned,
)
from tests.drop_in.test_habits import LABELS, assert_same, make, sample

IGNORED = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def left(module: nn.Module) -> dict[str, str]:
    """What is left as it is, and why."""
    told = {f"{f.path}.{f.method}".lstrip("."): f.left for f in marfast.findings(module)}
    return {name: reason for name, reason in told.items() if reason}


@IGNORED
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("when", ["before", "after accelerate", "after a first call"])
def test_the_modules_images_whatever_was_changed(change: Change, when: str) -> None:
    other = make()
    change(other)
    expected, state = sample(other), torch.get_rng_state()
    module = make()
    if when == "before":
        change(module)
    marfast.accelerate(module)
    if when == "after a first call":
        assert_same(sample(module), sample(make()))
    if when != "before":
        change(module)
    for _ in range(2):
        assert_same(sample(module), expected)
        assert torch.equal(torch.get_rng_state(), state)
    assert_same(sample(marfast.restore(module)), expected)
    assert_same(sample(marfast.accelerate(module)), expected)


@pytest.mark.parametrize(
    ("name", "where", "reason"),
    [
        ("other sampler", "diffloss.sample", "something else than MAR's"),
        ("other parametrisation", "diffloss.sample", "something else than MAR's"),
        ("other guidance", "diffloss.sample", "something else than MAR's"),
        ("other loop", "sample_tokens", "something else than MAR's"),
        ("more draws", "sample_tokens", "draws other random numbers"),
    ],
)
def test_one_warning_and_the_reason_in_findings(name: str, where: str, reason: str) -> None:
    module = make()
    CHANGES[name](module)
    marfast.accelerate(module)
    assert not left(module)
    with pytest.warns(RuntimeWarning, match=reason) as told:
        sample(module)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(module)
    assert reason in left(module)[where]


@IGNORED
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (compiled_head, "its diffloss: it lacks time_embed"),
        (pruned, "its diffloss: it lacks cond_embed.weight"),
        (flow, "its diffloss: its gen_diffusion lacks betas"),
        (other_classes, "its class_emb is no Embedding but Mixed"),
        (patched_process, "its diffloss: its gen_diffusion.p_sample_loop was set on the instance"),
        (decoder_on_the_instance, "its forward_mae_decoder was set on the instance"),
        (head_on_the_instance, "its diffloss.net.forward was set on the instance"),
        (loop_on_the_instance, "its sample_tokens was set on the instance"),
    ],
)
def test_findings_say_before_what_cannot_be_replaced(change: Change, reason: str) -> None:
    module = make()
    change(module)
    assert left(marfast.accelerate(module))["sample_tokens"].startswith(reason)


@pytest.mark.usefixtures("needs_native")
def test_in_its_own_loop_blocks_and_head_are_fast() -> None:
    module = make()
    module.__class__ = DrawsMore
    expected = sample(module)
    marfast.accelerate(module)
    with pytest.warns(RuntimeWarning):
        sample(module)  # tried, and left
    with choice.used() as used:
        assert_same(sample(module), expected)
    assert used["fused_linear"] == used["ddpm_sample"] == {"cpu"}
    assert used["attention"] == {"torch"}  # as the blocks' own code has it: rounding is its own


def test_a_trial_moves_no_randomness() -> None:
    module = marfast.accelerate(make())
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    why = installed(module)["sample_tokens"].why_not(module, True, "linear", True)
    assert not why
    now = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert now == state


def test_a_fresh_models_zeros_hide_nothing() -> None:
    fresh = MAR(img_size=16, vae_stride=1, patch_size=4, vae_embed_dim=1, class_num=10,
                buffer_size=4, encoder_embed_dim=24, encoder_depth=2, encoder_num_heads=2,
                decoder_embed_dim=24, decoder_depth=2, decoder_num_heads=2, diffloss_d=2,
                diffloss_w=24, num_sampling_steps="4", clip_denoised=True).eval()  # fmt: skip
    fresh.diffloss.net.__class__ = OtherGuidance
    marfast.accelerate(fresh)
    with pytest.warns(RuntimeWarning, match="computes something else"):
        sample(fresh)


@pytest.mark.parametrize("where", ["decoder_blocks.0.attn", "decoder_blocks.1", "diffloss.net"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_watches_a_forward_is_called(where: str, when: str) -> None:
    def watch(module: MAR) -> None:
        part = module.get_submodule(where)
        inner = part.forward

        @functools.wraps(inner)
        def seen(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return inner(*args, **kwargs)

        part.forward = seen  # type: ignore

    calls: list[int] = []
    own = make()
    watch(own)
    expected = sample(own)
    count = len(calls)
    module = make()
    if when == "before":
        watch(module)
    marfast.accelerate(module)
    if when == "after":
        watch(module)
    for _ in range(2):
        calls.clear()
        assert_same(sample(module), expected)
        assert len(calls) == count
    watched = module.get_submodule(where).forward
    assert module.get_submodule(where).forward is watched
    assert_same(sample(marfast.restore(module)), expected)


def test_hooks_for_all_modules_run() -> None:
    module, calls = marfast.accelerate(make()), []
    expected = sample(module)
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: calls.append(type(m)))
    try:
        assert_same(sample(module), expected)
    finally:
        handle.remove()
    assert calls.count(nn.GELU) == 5 * (len(module.encoder_blocks) + len(module.decoder_blocks))


def replica(module: nn.Module) -> Any:
    """As nn.DataParallel makes it, of tensors twice the module's."""
    made = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        made._modules[name] = None if child is None else replica(child)
    for name, parameter in module._parameters.items():
        made._parameters.pop(name, None)
        setattr(made, name, None if parameter is None else parameter.detach() * 2)
    return made


@pytest.mark.parametrize("training", [False, True])
def test_a_replica_computes_with_its_own_tensors(training: bool) -> None:
    head = make().diffloss.net.train(training)
    x, t, c = torch.randn(3, 16), torch.arange(3), torch.randn(3, head.cond_embed.in_features)
    with torch.no_grad():
        expected = replica(head)(x, t, c)
        twice = copy.deepcopy(head)
        for parameter in twice.parameters():
            parameter.mul_(2)
        assert torch.equal(twice(x, t, c), expected)
        assert torch.equal(replica(marfast.accelerate(head))(x, t, c), expected)


def test_threads_get_their_own_precision() -> None:
    head = marfast.accelerate(make()).diffloss.net
    x, t, c = torch.randn(6, 16), torch.arange(6), torch.randn(6, head.cond_embed.in_features)

    def call(low: bool) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return head(x, t, c)

    expected = {low: call(low) for low in (False, True)}
    wrong: list[bool] = []

    def serve(low: bool) -> None:
        wrong.extend(not torch.equal(call(low), expected[low]) for _ in range(100))

    threads = [threading.Thread(target=serve, args=(low,)) for low in (False, True) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 400
    assert not any(wrong)


def test_a_deleted_model_is_freed_at_once() -> None:
    model = marfast.accelerate(make())
    sample(model)
    gc.collect()
    gc.disable()
    try:
        weight = weakref.ref(model.mask_token)
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_a_method_keeps_its_model() -> None:
    expected = sample(make())
    method = marfast.accelerate(make()).sample_tokens
    np.random.seed(5)
    torch.manual_seed(5)
    assert_same(method(3, num_iter=5, cfg=2.0, labels=LABELS), expected)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([-5, 1, 4]),
        torch.tensor([-1, 1, 4]),
        torch.tensor([1, 2, 10]),
        torch.tensor([1.7, 1.0, 4.0]),
        torch.tensor([True, False, True]),
        torch.tensor([1, 2]),
        torch.tensor([[1], [2], [3]]),
        [1, 2, 3],
    ],
    ids=str,
)
def test_labels_that_the_module_refuses(labels: Any) -> None:
    with pytest.raises((IndexError, RuntimeError, TypeError)):
        sample(make(), labels=labels)
    with pytest.raises(ArgumentError, match=r"labels: .*allowed are 3 whole numbers from 0 to 9 "):
        sample(marfast.accelerate(make()), labels=labels)


@pytest.mark.parametrize("temperature", ["1", None, torch.tensor([0.9, 0.8])], ids=str)
def test_temperatures_that_the_module_refuses(temperature: Any) -> None:
    errors = []
    for module in (make(), marfast.accelerate(make())):
        for call in (
            lambda module=module: sample(module, temperature=temperature),
            lambda module=module: module.diffloss.sample(torch.randn(2, 48), temperature),
        ):
            with pytest.raises((RuntimeError, TypeError)) as error:
                call()
            errors.append(str(error.value))
    assert errors[:2] == errors[2:]


def test_labels_of_another_device_go_to_the_modules_own_code() -> None:
    labels = LABELS.to("meta")
    expected = sample(make(), labels=labels, cfg=1.0)
    actual = sample(marfast.accelerate(make()), labels=labels, cfg=1.0)
    assert (actual.device, actual.shape) == (expected.device, expected.shape)


def test_labels_without_their_memory() -> None:
    labels = LABELS.clone()
    labels.untyped_storage().resize_(0)
    with pytest.raises(ArgumentError, match="labels: it has lost its memory"):
        sample(marfast.accelerate(make()), labels=labels)


@pytest.mark.parametrize(
    "options",
    [
        {"labels": torch.tensor([3]), "cfg": 1.0},
        {"labels": LABELS.int()},
        {"num_iter": np.int64(5)},
        {"num_iter": True},
        {"cfg": np.float32(2), "temperature": torch.tensor(0.9)},
    ],
    ids=str,
)
def test_arguments_that_the_module_takes(options: dict[str, Any]) -> None:
    module = make()
    expected = sample(module, **options)
    assert_same(sample(marfast.accelerate(module), **options), expected)


def without_decoder_blocks(module: MAR) -> None:
    module.decoder_blocks = nn.ModuleList()


def without_encoder_blocks(module: MAR) -> None:
    module.encoder_blocks = nn.ModuleList()


def without_buffer(module: MAR) -> None:
    module.buffer_size = 0
    for name in ("encoder_pos_embed_learned", "decoder_pos_embed_learned"):
        setattr(module, name, nn.Parameter(getattr(module, name)[:, -module.seq_len :]))


@pytest.mark.parametrize("change", [without_decoder_blocks, without_encoder_blocks, without_buffer])
def test_architectures_without_a_part(change: Change) -> None:
    module = make()
    change(module)
    expected = sample(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(sample(marfast.accelerate(module)), expected)


def test_one_whose_parts_are_all_left_is_told_and_works() -> None:
    head = make().diffloss.net
    pruned_head = nn.ModuleDict({"head": head})
    prune.l1_unstructured(head.cond_embed, "weight", 0.3)
    with pytest.warns(RuntimeWarning, match=r"nothing was made fast: head\.forward: .*it lacks"):
        assert marfast.accelerate(pruned_head) is pruned_head
