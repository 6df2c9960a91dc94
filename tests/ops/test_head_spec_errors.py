"""What a head's spec can't be, and what doesn't fit one."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.head import HeadShape
from marfast.reference import HeadSpec, create_diffusion
from tests.ops.spec_heads import SPECS, denoise_args, drawn_weights


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
