"""On a GPU: every op by every backend that can run it there, against the reference."""

import pytest
import torch

from marfast.ops.op import OPS
from tests.gpu.known_answers import MORE, outcomes


@pytest.mark.gpu
def test_every_backend_gives_the_known_answers() -> None:
    found = dict(outcomes(torch.device("cuda")))
    assert any(reason == "" for reason in found.values())
    assert [f"{k}: {v}" for k, v in found.items() if v and not v.startswith("can't run")] == []


def test_the_cases_are_all_ops_in_all_dtypes() -> None:
    """Without a GPU no backend runs; the cases are there, each with its reason."""
    found = dict(outcomes(torch.device("cpu")))
    expected = {
        f"{op.name} {name} {dtype}{more}"
        for op in OPS.values()
        for name in ("cuda", "triton")
        if name in op.backends
        for dtype in ("float32", "bfloat16", "float16")
        for more in ("", *(f", {more}" for more in MORE.get(op.name, {})))
    }
    assert found.keys() == expected
    assert all(reason.startswith("can't run: ") for reason in found.values())
