"""Edits by the "cuda" backends, which the emulator runs: all unknown is a generation, none is the
input."""

import pytest
import torch

import marfast
from marfast.ops import choice
from tests.generation.test_edit import images, masks
from tests.models import tiny_pipeline

from . import build

pytestmark = pytest.mark.skipif(bool(build.cannot_build()), reason=build.cannot_build())


@pytest.mark.parametrize("emulated", ["forward"], indirect=True)
def test_an_edit(emulated: None) -> None:
    pipeline, given = tiny_pipeline(steps=2), images(2)
    with marfast.backend("cuda"), choice.used() as used:
        made = pipeline.edit(given, masks(16, 16), [1, None], seed=3, num_iter=2, cfg=2.0)
        expected = pipeline.generate([1, None], seed=3, num_iter=2, cfg=2.0)
        assert torch.equal(made, expected)
        assert torch.equal(pipeline.edit(given, masks(0, 0), 1, seed=3), given)
        made = pipeline.edit(given, masks(3, 0), 1, seed=3, num_iter=2)
    assert used["ddpm_sample"] == {"cuda"}
    with marfast.backend("reference"):
        expected = pipeline.edit(given, masks(3, 0), 1, seed=3, num_iter=2)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
