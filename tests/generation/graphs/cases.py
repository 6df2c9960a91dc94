"""What tests of graphs share: images of the plain loop, and numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import tiny_pipeline

LABELS = [3, 1, 4]
GRAPHS = 5 + 4
"""Of five iterations, which predict 1, 3, 3, 5 and 4 tokens."""
GLOBAL = torch.Generator()
"""The global one of a device."""

by_one_backend = pytest.mark.parametrize("backend", ["auto"], indirect=True)
"""What has nothing to do with bits."""


def plain(labels: Any = LABELS, **options: Any) -> Tensor:
    return tiny_pipeline().generate(labels, **options)
