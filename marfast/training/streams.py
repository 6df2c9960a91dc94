"""Random numbers of a run: each part of a batch has streams of its own, as if a process of its own
computed it. Part i begins as LTH14/mar's process of rank i: all generators seeded with seed + i.

A model draws from the global generators of NumPy, the CPU and the device; a part's states are put
there while it is computed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]
"""Of one part's generators, by name; plain tensors."""


def _now(device: torch.device) -> State:
    """Of the global generators."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    rest = torch.tensor([position, has_gauss, gauss], dtype=torch.float64)
    state = {
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": rest,
        "cpu": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set(state: Mapping[str, Tensor], device: torch.device) -> None:
    position, has_gauss, gauss = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def own_generators(device: torch.device) -> Iterator[None]:
    """The caller's states are as they were afterwards."""
    before = _now(device)
    try:
        yield
    finally:
        _set(before, device)


def seed_all(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)


class Streams:
    """The states of the parts that this process computes."""

    def __init__(self, seed: int, parts: range, device: torch.device):
        self.device = device
        self.states: dict[int, State] = {}
        with own_generators(device):
            for part in parts:
                seed_all(seed + part)
                self.states[part] = _now(device)

    @contextmanager
    def of(self, part: int) -> Iterator[None]:
        """A part's own random numbers, from where it left off."""
        _set(self.states[part], self.device)
        yield
        self.states[part] = _now(self.device)

    def load(self, states: Mapping[int, Mapping[str, Tensor]]) -> None:
        for part in self.states:
            self.states[part] = dict(states[part])


def to_tensors(states: Mapping[int, State]) -> dict[str, Tensor]:
    return {f"part.{p}.{name}": value for p, s in states.items() for name, value in s.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[int, State]:
    """Of what `to_tensors` made; other tensors are passed over."""
    states: dict[int, Any] = {}
    for key, value in tensors.items():
        if key.startswith("part."):
            _, part, name = key.split(".")
            states.setdefault(int(part), {})[name] = value
    return states
