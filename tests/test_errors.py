"""What counts as a whole number."""

from typing import Any

import numpy as np
import pytest
import torch

from marfast.errors import ArgumentError, check_whole


@pytest.mark.parametrize(
    "given", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3])]
)
def test_whole_numbers_become_pythons(given: Any) -> None:
    value = check_whole("n", given, 0)
    assert (type(value), value) == (int, 3)


@pytest.mark.parametrize(
    "given",
    [
        *(True, np.bool_(True), torch.tensor(True), np.array(True)),
        *(3.0, np.float64(3), torch.tensor(3.0), "3", None, b"3"),
        *([3], np.array([3, 4]), torch.tensor([3, 4]), -1, np.int64(-1)),
    ],
)
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^n: .*; allowed are whole numbers from 0"):
        check_whole("n", given, 0)
