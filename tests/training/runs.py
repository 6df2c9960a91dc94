"""Small runs, for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from marfast.checkpoints import Architecture, Preset, Settings
from marfast.training import Outcome, Session, TrainSettings, train
from marfast.training.arrays import Images, Sequences
from marfast.training.data import Data
from tests.models import SEQUENCE, TINY

QUICK = TrainSettings(epochs=2, batch=8, warmup=0.5, ema=(0.9, 0.5), dropout=0.1, mul=2)
SOON = Session(save_minutes=0.0, log_steps=2)
"""A checkpoint after each step."""
RARELY = Session(log_steps=2)
"""One at the end."""


def preset(architecture: Architecture = TINY) -> Preset:
    return Preset(architecture, Settings(num_iter=2, steps=4, clip_denoised=True))


def config(folder: Path, architecture: Architecture = TINY) -> Path:
    file = folder / "tiny.json"
    file.write_text(json.dumps(preset(architecture).to_dict()))
    return file


def images(count: int = 40, architecture: Architecture = TINY, seed: int = 0) -> Data:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 1, 16, 16)).astype(np.uint8)
    labels = random.integers(0, architecture.class_num, count)
    return Images.of(pixels, labels, architecture, (), None)


def sequences(count: int = 40) -> Data:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 10, count)
    vectors = random.standard_normal((count, 9, 3)).astype(np.float32)
    return Sequences.of(vectors, lengths, random.integers(0, 4, count), SEQUENCE)


def go(folder: Path, data: Data | None = None, **more: Any) -> Outcome:
    """A run of the tiny model, or the rest of one."""
    of = {"settings": QUICK, "session": SOON, "model": preset()} | more
    of["out"] = folder
    return train(data=data or images(), **of)


def state_of(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, but for times."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "last").iterdir()):
        if file.suffix == ".safetensors":
            found |= {f"{file.name}: {name}": v for name, v in load_file(file).items()}
        else:
            found[file.name] = json.loads(file.read_text())
    del found["state.json"]["seconds"]
    return found


def assert_same_state(first: Path, second: Path) -> None:
    """To the last bit."""
    a, b = state_of(first), state_of(second)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, Tensor):
            assert value.dtype == b[name].dtype, name
            assert torch.equal(value, b[name]), name
        else:
            assert value == b[name], name
