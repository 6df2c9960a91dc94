"""Whether the Triton backend can run, and why not; it runs on request."""

from typing import Any

import pytest
import torch

from marfast import ops
from marfast.ops.op import OPS
from marfast.ops.runtime import triton


def verdict(name: str, *args: Any) -> tuple[bool, str]:
    op = OPS[name]
    return op.backends["triton"].can_run(op.bind(*args))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", sorted(name for name in OPS if "triton" in OPS[name].backends))
def test_examples_are_taken_and_on_request_only(name, dtype):
    example = OPS[name].example_args(dtype)
    assert verdict(name, *example) == (True, "")
    assert ops.which(name, *example) != "triton"
    with ops.backend("triton"):
        assert ops.which(name, *example) == "triton"


X = torch.ones(2, 8)
WIDE = torch.ones(1, 16385)
HALF_OPEN = torch.ones(1, 2, 4, 4)[:, :, :, :3]
LIMITED = {"clip_denoised": False, "dynamic_threshold": 0.9}
SORTS = "x_0 is limited by a quantile of itself"
REFUSED = [
    ("layer_norm_modulate", (WIDE, WIDE, WIDE), "rows are 16385 wide; the kernel holds 16384"),
    ("layer_norm_modulate", (X.double(),) * 3, "x is float64; the kernel takes float32 or"),
    ("layer_norm_modulate", (X.bfloat16(),) * 3, "x is bfloat16, which the interpreter cuts off"),
    ("attention", (torch.ones(1, 2, 3, 1, 129),), "qkv has heads of 129; the kernel takes 128"),
    ("group_norm_silu", (HALF_OPEN, X[0], X[0], 2), "x's positions don't lie at one stride"),
    ("ddpm_step", (X.double(), torch.ones(2, 16), X, X, X), "x is float64; the kernel takes float"),
    ("ddpm_step", OPS["ddpm_step"].example_args()._replace(**LIMITED), SORTS),
    ("ddpm_sample", OPS["ddpm_sample"].example_args()._replace(**LIMITED), SORTS),
]


@pytest.mark.parametrize(
    ("name", "args", "reason"), REFUSED, ids=[" ".join(r[::2]) for r in REFUSED]
)
def test_limits_are_reasons(name, args, reason, monkeypatch):
    # as without tests/triton/interpreter.py
    monkeypatch.setattr(triton, "INTERPRETED", (torch.float32, torch.float16))
    ok, actual = verdict(name, *args)
    assert not ok
    assert actual.startswith(reason)
