"""Any tokenizer plugs in: the protocol, what doesn't suit a model, and docs/tokenizers.md."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import marfast
from marfast.checkpoints import Architecture, Preset, Settings
from marfast.model import KLTokenizer
from marfast.reference import AutoencoderKL
from marfast.verifying.case import numbers
from tests.models import LATENT, TINY, tiny_autoencoder, tiny_weights

PAGE = Path(__file__).parents[2] / "docs" / "tokenizers.md"
SETTINGS = Settings(num_iter=3, steps=3)


class Nearest:
    """The least that a tokenizer is: a latent's first three numbers colour 2 x 2 pixels."""

    stride = 2
    channels = 4

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat([images, images[:, :1]], dim=1)[:, :, ::2, ::2]

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    save_file(tiny_weights(LATENT), tmp_path / "latent.safetensors")
    return tmp_path / "latent.safetensors"


def load(path: Path, vae: Any, architecture: Architecture = LATENT) -> Any:
    return marfast.load(path, preset=Preset(architecture, SETTINGS), vae=vae)


@pytest.mark.parametrize("parts", [None, 1])
def test_images_are_the_decoded_latents(model_file: Path, tmp_path: Path, parts: Any) -> None:
    module = tiny_autoencoder()
    file = tmp_path / "vae.ckpt"
    torch.save({"model": module.state_dict()}, file)
    without = load(model_file, None)
    latents = without.generate([3, None, 5], seed=1, part=parts)
    assert latents.shape == (3, 4, 4, 4)
    assert not without.makes_images
    with torch.no_grad():
        expected = module.decode(latents / 0.2325).clamp(-1, 1)
    assert (expected.abs() == 1).any()
    for vae in (file, str(file), KLTokenizer(module)):
        model = load(model_file, vae)
        images = model.generate([3, None, 5], seed=1, part=parts)
        assert model.makes_images
        assert images.shape == (3, 3, 8, 8)
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=1e-5)


def test_any_object_with_the_four_names_will_do(model_file: Path) -> None:
    latents = load(model_file, None).generate(1, seed=2)
    images = load(model_file, Nearest()).generate(1, seed=2)
    assert torch.equal(images, Nearest().decode(latents).clamp(-1, 1))


def test_a_tokenizer_moves_with_its_model(model_file: Path) -> None:
    model = load(model_file, KLTokenizer(tiny_autoencoder()))
    model.to("meta")
    assert model.tokenizer.module.post_quant_conv.weight.is_meta
    load(model_file, Nearest()).to("meta")  # what can't move stays


class NoDecode:
    stride, channels = 2, 4

    def encode(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize(
    ("vae", "changes", "kind", "said"),
    [
        (Nearest(), {"vae_stride": 4}, ValueError, "vae: its stride is 2; this model's latents"),
        (
            Nearest(),
            {"vae_embed_dim": 5},
            ValueError,
            "vae: its channels is 4; this model's latents",
        ),
        (Nearest(), {"vae_stride": 1}, ValueError, "vae: given for a model of pixels"),
        (NoDecode(), {}, TypeError, "vae: NoDecode lacks decode; a tokenizer has encode, decode,"),
        (AutoencoderKL, {}, TypeError, "vae: type lacks stride, channels; a tokenizer has"),
        (7, {}, TypeError, "vae: int lacks encode, decode, stride, channels; a tokenizer has"),
        ("missing.ckpt", {}, FileNotFoundError, "missing.ckpt: no such file"),
    ],
)
def test_what_does_not_suit_is_refused_before_weights_are_read(
    vae: Any, changes: dict[str, int], kind: type[Exception], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"not": torch.zeros(1)}, path)  # which loading its weights would say
    with pytest.raises(kind, match=re.escape(said)):
        load(path, vae, dataclasses.replace(LATENT, **changes))


def test_an_embedded_model_of_pixels_needs_none() -> None:
    assert TINY.makes_pixels
    with pytest.raises(ValueError, match="vae: given for a model of pixels, which needs none"):
        marfast.load("fashion-mnist", vae="kl16.ckpt")


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        (TINY, 16),
        (LATENT, 8),
        (Architecture(), 256),
        (dataclasses.replace(LATENT, img_size=9), 8),
        (dataclasses.replace(TINY, img_size=19), 16),
    ],
)
def test_images_have_the_side_that_is_said(architecture: Architecture, side: int) -> None:
    assert architecture.image_side == side
    latent = round(architecture.seq_len**0.5) * architecture.patch_size
    assert architecture.image_side == latent * architecture.vae_stride


class StandIn(nn.Module):
    """diffusers' AutoencoderKL as far as the page uses it: the reference behind its interface."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_autoencoder()
        self.config = SimpleNamespace(
            block_out_channels=(32, 64), latent_channels=4, scaling_factor=0.5, shift_factor=0.25
        )
        self.sliced = False

    @classmethod
    def from_pretrained(cls, name: str) -> "StandIn":
        assert name == "stabilityai/sd-vae-ft-mse"
        return cls()

    def enable_slicing(self) -> None:
        self.sliced = True

    def encode(self, x: Tensor) -> Any:
        return SimpleNamespace(latent_dist=self.inner.encode(x))

    def decode(self, z: Tensor) -> Any:
        return SimpleNamespace(sample=self.inner.decode(z))


def test_the_page_works(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    diffusers = ModuleType("diffusers")
    diffusers.AutoencoderKL = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffusers", diffusers)
    torch.save(tiny_weights(LATENT), "mine.pth")
    Path("mine.json").write_text(json.dumps(Preset(LATENT, SETTINGS).to_dict()))
    blocks = re.findall(
        r"<!-- tested: (\S+) -->\n```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M
    )
    assert [Path(file).name for file, _ in blocks] == [Path(__file__).name] * 2
    names: dict[str, Any] = {}
    for _, code in blocks:
        exec(code, names)
    tokenizer, model = names["model"].tokenizer, names["model"]
    assert (tokenizer.stride, tokenizer.channels) == (2, 4)
    assert names["vae"].sliced

    inner = names["vae"].inner
    latents = load(model_file, None).generate([1, 2], seed=3)
    with torch.no_grad():
        expected = inner.decode(latents / 0.5 + 0.25).clamp(-1, 1)
    assert torch.equal(model.generate([1, 2], seed=3), expected)
    images = numbers(2, 3, 8, 8)
    mean = (inner.encode(images).mean - 0.25) * 0.5
    assert torch.equal(tokenizer.encode(images), mean)
    assert tokenizer.to("meta").vae.inner.quant_conv.weight.is_meta
