"""How arguments reach C++: by name, each once, each as its field means it."""

from typing import Any

import pytest
import torch

from marfast.ops.head import HeadShape
from marfast.ops.runtime import cpu
from marfast.reference import HeadSpec
from marfast.reference.diffusion import HeadOptions

pytestmark = pytest.mark.usefixtures("needs_native")


@pytest.fixture
def step() -> dict[str, Any]:
    """Arguments of a guided step of 3 tokens of 5 channels."""
    given: dict[str, Any] = {name: torch.ones(3, 5) for name in ("out", "x", "noise")}
    given |= {"model_output": torch.ones(6, 10), "coefficients": torch.ones(8)}
    return given | {"guidance": torch.ones(1), "x0": None, "options": HeadOptions(branches=2)}


def refused(op: str, given: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match=f"^{op}: ") as caught:
        getattr(cpu.extension(), op)(**given)
    return str(caught.value).removeprefix(f"{op}: ")


def test_names_and_not_places_tell_arguments_apart(step):
    step["x"] = torch.full((3, 5), 2.0)
    cpu.extension().ddpm_step(**step)
    expected = step["out"].clone()
    cpu.extension().ddpm_step(**dict(reversed(step.items())))
    assert torch.equal(step["out"], expected)


def test_a_missing_argument_is_named(step):
    del step["noise"]
    assert refused("ddpm_step", step) == "noise is missing"


def test_an_argument_of_no_field_is_an_error(step):
    step["sigma"] = 1.0
    assert refused("ddpm_step", step) == "sigma is no argument of its own"


def test_a_place_is_an_error(step):
    with pytest.raises(TypeError):
        cpu.extension().ddpm_step(step.pop("out"), **step)


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("noise", torch.ones(3, 6), "noise has another shape"),
        ("noise", torch.ones(4, 5), "noise has another shape"),
        ("noise", torch.ones(15), "noise has another shape"),
        ("noise", torch.ones(3, 5, dtype=torch.float16), "noise has another dtype"),
        ("noise", torch.ones(5, 3).t(), "noise has elements apart"),
        ("out", torch.ones(3, 6)[:, :5], "out has elements apart"),
        ("model_output", torch.ones(3, 10), "model_output has another shape"),
        ("guidance", torch.ones(2), "guidance has another shape"),
        ("coefficients", torch.ones(16)[::2], "coefficients has elements apart"),
    ],
)
def test_a_tensor_that_its_field_does_not_mean_is_named(step, name, wrong, reason):
    step[name] = wrong
    assert refused("ddpm_step", step) == reason


def test_a_dtype_that_no_kernel_knows_is_an_error(step):
    step["noise"] = torch.ones(3, 5).double()
    with pytest.raises(ValueError, match="dtype"):
        cpu.extension().ddpm_step(**step)


def test_rows_may_lie_at_any_stride(step):
    cpu.extension().ddpm_step(**step)
    expected = step["out"].clone()
    step["noise"] = torch.ones(1, 5).expand(3, 5)
    step["x"] = torch.ones(3, 9)[:, :5]
    cpu.extension().ddpm_step(**step)
    assert torch.equal(step["out"], expected)


def test_a_buffer_that_is_too_small_is_an_error():
    shape = HeadShape(channels=3, condition=5, width=33, depth=2, frequencies=7, hidden=33)
    weights = [torch.ones(sizes) for sizes in shape.expected()]
    sizes = {"shape": shape, "spec": HeadSpec(), "dtype": torch.float32}
    size = cpu.extension().packed_head_size(**sizes)
    given = {**sizes, "weights": weights}
    reason = refused("pack_head", {**given, "packed": torch.ones(size - 1)})
    assert reason == "packed is too small, or not contiguous"
    fewer = {**given, "weights": weights[:-1], "packed": torch.ones(size)}
    assert refused("pack_head", fewer) == "weights are not a head's"


def test_a_choice_that_no_kernel_knows_is_an_error():
    spec = HeadSpec()
    object.__setattr__(spec, "norm", "batch")
    shape = HeadShape(channels=3, condition=5, width=33, depth=2, frequencies=7, hidden=33)
    given = {"shape": shape, "spec": spec, "dtype": torch.float32}
    with pytest.raises(ValueError, match="no kernel knows batch"):
        cpu.extension().packed_head_size(**given)


@pytest.mark.parametrize("left", [0, 59])
def test_memory_that_is_gone_is_an_error(step, left):
    for name in ("out", "x", "model_output", "noise", "coefficients", "guidance"):
        lost = step[name].clone()
        lost.untyped_storage().resize_(min(left, lost.nbytes - 1))
        reason = f"{name} has lost its memory: its storage was freed or made smaller"
        assert refused("ddpm_step", step | {name: lost}) == reason


def test_a_view_of_less_than_its_storage_holds_is_backed(step):
    whole = torch.ones(100)
    step["noise"] = whole[85:].view(3, 5)
    cpu.extension().ddpm_step(**step)
    whole.untyped_storage().resize_(4 * 99)
    assert refused("ddpm_step", step).startswith("noise has lost its memory")
