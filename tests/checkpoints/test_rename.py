"""Names of weights: the original's come out of every layout, and nothing out of others."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import CheckpointError, Preset, Settings, inspect
from marfast.model import load_tokenizer
from tests.models import TINY, tiny_autoencoder, tiny_weights, training_checkpoint

PRESET = Preset(TINY, Settings(num_iter=4, steps=3))


@pytest.mark.parametrize(
    ("prefix", "layout"),
    [
        ("", "original"),
        ("module.", "DDP"),
        ("_orig_mod.", "torch.compile"),
        ("module._orig_mod.", "DDP of torch.compile"),
        ("_orig_mod.module.", "torch.compile of DDP"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_prefixes_are_stripped(prefix: str, layout: str, suffix: str, tmp_path: Path) -> None:
    path, weights = tmp_path / f"a{suffix}", tiny_weights()
    named = {prefix + key: value for key, value in weights.items()}
    if suffix == ".pth":
        torch.save(training_checkpoint(named, named), path)
    else:
        save_file(named, path)
    assert inspect(path, PRESET).layout == layout
    for key, value in marfast.load(path, PRESET).model.module.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_a_tokenizers_are_stripped_too(tmp_path: Path) -> None:
    module = tiny_autoencoder()
    named = {f"module.{key}": value for key, value in module.state_dict().items()}
    torch.save({"model": named}, tmp_path / "vae.ckpt")
    for key, value in load_tokenizer(tmp_path / "vae.ckpt").module.state_dict().items():
        assert torch.equal(value, module.state_dict()[key]), key


def test_a_prefix_that_some_keys_lack_stays(tmp_path: Path) -> None:
    named = {f"module.{key}": value for key, value in tiny_weights().items()}
    save_file(named | {"mask_token": named.pop("module.mask_token")}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: misses class_emb\.weight"):
        inspect(tmp_path / "a.safetensors", PRESET)
