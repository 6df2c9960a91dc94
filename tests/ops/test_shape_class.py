"""Which calls count as alike."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marfast.ops.op import OPS
from marfast.ops.shape_class import precision, shape_class
from tests.ops.heads import sample_inputs


def test_it_names_dtype_shapes_and_options() -> None:
    found = {name: shape_class(op.example_args()) for name, op in OPS.items()}
    assert found["fused_linear"] == "float32 128x768 4096x768 4096 1024 1024 - True -"
    a = OPS["ddpm_sample"].example_args(torch.bfloat16)
    assert shape_class(a) == "float32+bfloat16 3x16 8x3x16 8x64 28(96x256..192) 8x8 8 1 True - True"


def sampling(**sizes: Any) -> str:
    return shape_class(OPS["ddpm_sample"].bind(*sample_inputs(**sizes)))


@pytest.mark.parametrize(
    "other",
    [
        {"tokens": 9},
        {"tokens": 4},
        {"guided": False},
        {"width": 96},
        {"depth": 3},
        {"condition": 32},
        {"dtype": torch.bfloat16},
        {"steps": 9},
    ],
    ids=str,
)
def test_what_makes_another_class(other: dict[str, Any]) -> None:
    usual = {"tokens": 7, "width": 64, "depth": 2, "condition": 24, "steps": 5}
    assert sampling(**usual | other) != sampling(**usual)
    assert sampling(**usual | {"tokens": 6}) == sampling(**usual)
    assert sampling(**usual | {"steps": 8}) == sampling(**usual)


def test_nothing_is_not_left_out() -> None:
    assert shape_class([torch.zeros(0, 16), torch.zeros(9), torch.tensor(1.0), [], 2.5]) == (
        "float32 0x16 16 0()"
    )


def test_half_precision_decides() -> None:
    x, w = torch.zeros(2), torch.zeros(2, dtype=torch.float16)
    assert precision([x, [w, w], None, 3]) == "float16"
    assert precision([x, [], True]) == "float32"
    assert precision([x.double(), x]) == "float64"


def test_each_mix_of_dtypes_is_a_class() -> None:
    """Each is another kernel."""
    x, w = torch.zeros(2, 8), torch.zeros(8)
    mixes = [(x, w), (x, w.half()), (x.half(), w), (x.half(), w.half()), (x.double(), w.double())]
    assert len({shape_class(mix) for mix in mixes}) == len(mixes)
    assert shape_class([x, torch.zeros(2, dtype=torch.int64)]) == "float32 2x8 2"


@pytest.mark.parametrize("told", [{"allow_tf32": True}, {"fp32_precision": "tf32"}], ids=str)
def test_products_of_libraries_that_round_are_a_class(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.zeros(2, 8)
    assert precision([x]) == "float32"
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**told))
    assert precision([x]) == "tf32"
    assert shape_class([x]) == "tf32 2x8"
    assert precision([x.half()]) == "float16"
