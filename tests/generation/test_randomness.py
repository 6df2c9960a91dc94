"""Step noise: the original's draws, each into its place."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from marfast.generation.randomness import BatchRandomness, Generators, ImageRandomness

TOKENS, CHANNELS, STEPS = 3, 7, 5


class Launches(TorchDispatchMode):
    """Counts operators that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func != torch.ops.aten.fill_.Scalar:  # conftest.py fills memory
            self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def generators(seed: int = 3) -> Generators:
    cpu = torch.Generator().manual_seed(seed)
    return Generators(np.random.RandomState(seed), cpu, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("rows", [range(4), range(1, 3)], ids=["whole", "part"])
def test_it_is_one_draw_of_all_rows_for_each_step(guided: bool, rows: range) -> None:
    own, ours = generators(), generators()
    size = 4 * TOKENS * (2 if guided else 1)
    drawn = [torch.randn(size, CHANNELS, generator=own.device) for _ in range(STEPS)]
    kept = slice(rows.start * TOKENS, rows.stop * TOKENS)
    expected = torch.stack([of_step[kept] for of_step in drawn])
    noise = BatchRandomness(ours, 4, rows).step_noise(TOKENS, CHANNELS, STEPS, guided)
    assert torch.equal(noise, expected)
    assert noise[0].is_contiguous()
    assert torch.equal(ours.device.get_state(), own.device.get_state())


@pytest.mark.parametrize("guided", [False, True])
def test_a_whole_batchs_is_copied_nowhere(guided: bool) -> None:
    randomness = BatchRandomness(generators(), 4, range(4))
    with Launches() as launched:
        randomness.step_noise(TOKENS, CHANNELS, STEPS, guided)
    assert launched.counts == {"normal_": STEPS, "empty": 1}


def test_images_of_their_own_seeds_are_put_together_at_once() -> None:
    streams = [BatchRandomness(generators(i), 1, range(1)) for i in range(4)]
    with Launches() as launched:
        ImageRandomness(streams).step_noise(TOKENS, CHANNELS, STEPS, guided=True)
    assert launched.counts == {"normal_": 4 * STEPS, "empty": 4, "cat": 1}
