"""Edits by the "triton" backends: all unknown is a generation, none is the input."""

import torch

import marfast
from marfast.ops import choice
from tests.generation.test_edit import images, masks
from tests.models import tiny_pipeline


def test_an_edit():
    pipeline, given = tiny_pipeline(steps=2), images(1)
    options = {"seed": 3, "num_iter": 1}
    with marfast.backend("triton"), choice.used() as used:
        made = pipeline.edit(given, masks(16), 1, **options)
        assert torch.equal(made, pipeline.generate(1, **options))
        assert torch.equal(pipeline.edit(given, masks(0), 1, **options), given)
        made = pipeline.edit(given, masks(2), 1, **options)
    assert used["ddpm_sample"] == {"triton"}
    with marfast.backend("reference"):
        expected = pipeline.edit(given, masks(2), 1, **options)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
