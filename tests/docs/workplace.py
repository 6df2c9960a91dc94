"""A folder with the files that the documents name, in which the paper's models are small ones."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from marfast.checkpoints import Preset, Settings
from marfast.checkpoints.presets import IMAGENET, MAR_PRESETS
from tests.models import LATENT, tiny_autoencoder, tiny_weights, training_checkpoint

MAR = Preset(
    dataclasses.replace(LATENT, class_num=1000), Settings(num_iter=4, steps=4, cfg=2.9), IMAGENET
)


def fill_workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it, and make it the current one."""
    monkeypatch.chdir(folder)
    for name in MAR_PRESETS:
        monkeypatch.setitem(MAR_PRESETS, name, MAR)
    weights = tiny_weights(MAR.architecture)
    torch.save(training_checkpoint(weights, weights, model="mar_base"), "checkpoint-last.pth")
    for name in ("weights.pth", "mar_large.pth"):
        torch.save(weights, name)
    torch.save({"model": tiny_autoencoder().state_dict()}, "kl16.ckpt")
    Path("path/to/snapshot").mkdir(parents=True)
    save_file(weights, "path/to/snapshot/mar-base.safetensors")
