"""The setting that ddpm_sample's library products are made under, which is the whole process's."""

from collections.abc import Iterator

import pytest
import torch

from marfast.ops.ddpm_sample.cuda import FULL_SUMS


@pytest.fixture(autouse=True, params=[True, False])
def before(request: pytest.FixtureRequest) -> Iterator[bool]:
    matmul = torch.backends.cuda.matmul
    usual = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = request.param
    yield request.param
    matmul.allow_bf16_reduced_precision_reduction = usual


def allowed() -> bool:
    return torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction


def test_it_is_put_back_whatever_is_raised(before: bool) -> None:
    def fail() -> None:
        with FULL_SUMS:
            assert not allowed()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert allowed() == before


def test_threads_that_overlap_leave_it_as_it_was(before: bool) -> None:
    """The first is gone before the second."""
    FULL_SUMS.__enter__()
    FULL_SUMS.__enter__()
    FULL_SUMS.__exit__()
    assert not allowed()
    FULL_SUMS.__exit__()
    assert allowed() == before
