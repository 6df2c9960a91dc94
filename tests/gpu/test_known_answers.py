"""On a GPU: every op by every backend that can run it there, against the reference."""

from typing import Any

import pytest
import torch

from marfast.ops.op import Backend, Op
from tests.gpu.known_answers import DTYPES, MORE, jobs, outcomes, row_of


@pytest.mark.gpu
@pytest.mark.parametrize(("op", "backend"), [*jobs()], ids=lambda value: value.name)
def test_a_backend_gives_the_known_answers(op: Op[Any], backend: Backend) -> None:
    found = dict(outcomes(op, backend, torch.device("cuda")))
    assert {case: said for case, said in found.items() if "failed" in row_of(said)} == {}


@pytest.mark.parametrize(("op", "backend"), [*jobs(("cuda",))], ids=lambda value: value.name)
def test_the_cases_are_all_in_all_dtypes(op: Op[Any], backend: Backend) -> None:
    """Without a GPU none runs; the cases are there, each with its reason."""
    found = dict(outcomes(op, backend, torch.device("cpu")))
    assert len(found) == len(DTYPES) * (len(op.examples) + len(MORE.get(op.name, {})))
    assert all(row_of(said)["right"] is None for said in found.values())
    small = dict(outcomes(op, backend, torch.device("cpu"), small=True))
    assert len(small) == len(DTYPES) * len(op.examples)
