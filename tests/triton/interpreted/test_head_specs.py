"""Heads of other specs by Triton's launches: as accurate as the reference; and what isn't taken."""

import pytest

from marfast import ops
from marfast.ops.op import OPS
from marfast.reference import HeadSpec
from tests.helpers import assert_as_accurate
from tests.ops.spec_heads import SPECS, denoise_args

TAKEN = [spec for spec in SPECS if spec.norm == "layer" and not spec.gated]


@pytest.mark.parametrize("spec", TAKEN, ids=range(len(TAKEN)))
def test_error_against_float64(spec: HeadSpec) -> None:
    cases = [denoise_args(spec, 3, seed, width=24) for seed in range(8)]
    with ops.backend("triton"):
        assert_as_accurate(ops.denoise, ops.denoise.plain, cases)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (HeadSpec(norm="rms"), "the head's norm is rms; the kernel takes layer"),
        (HeadSpec(activation="swiglu"), "the head's activation is swiglu; the kernel takes silu"),
    ],
    ids=str,
)
def test_what_is_not_taken_is_said(spec: HeadSpec, reason: str) -> None:
    op = OPS["denoise"]
    can, why = op.backends["triton"].can_run(op.bind(*denoise_args(spec)))
    assert not can
    assert why.startswith(reason)
