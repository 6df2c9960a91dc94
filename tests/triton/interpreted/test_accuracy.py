"""Rule 4: errors against float64, over 8 seeds, within 2 (RMS) and 4 (largest) times PyTorch's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marfast import ops
from marfast.ops.op import OPS
from tests.helpers import assert_as_accurate
from tests.triton.cases import ACCURACY, DTYPES, Case


@pytest.mark.parametrize("case", ACCURACY, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_against_float64(case: Case, dtype: torch.dtype) -> None:
    op = OPS[case.op]

    def run(*args: Any) -> Tensor:
        with ops.backend("triton"):
            return op(*args)

    assert_as_accurate(run, op.plain, [case.args(dtype, seed) for seed in range(8)])
