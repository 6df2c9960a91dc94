"""What files say about themselves, and presets that contradict them."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import CheckpointError, Preset, Settings, get_preset
from marfast.checkpoints.options import preset_from_options
from marfast.checkpoints.presets import MAR_PRESETS
from tests.models import TINY, tiny_weights, training_checkpoint

# The options of the paper's MAR-B by main_mar.py that say something about the model, and some more.
OPTIONS = {
    **{"model": "mar_base", "img_size": 256, "vae_embed_dim": 16, "vae_stride": 16},
    **{"patch_size": 1, "class_num": 1000, "buffer_size": 64, "diffloss_d": 6, "diffloss_w": 1024},
    **{"num_sampling_steps": "100", "num_iter": 64, "cfg": 1.0, "cfg_schedule": "linear"},
    **{"temperature": 1.0, "label_drop_prob": 0.1, "mask_ratio_min": 0.7, "lr": None},
}


def test_the_papers_options_are_the_papers_preset() -> None:
    assert preset_from_options(OPTIONS, "args") == MAR_PRESETS["mar_base"]
    large = OPTIONS | {"model": "mar_large", "diffloss_d": 8, "diffloss_w": 1280}
    assert preset_from_options(large, "args") == MAR_PRESETS["mar_large"]


def test_options_change_the_architecture_and_the_steps() -> None:
    changes = {"img_size": 64, "patch_size": 2, "class_num": 7, "diffloss_d": 12}
    preset = preset_from_options(OPTIONS | changes | {"num_sampling_steps": "ddim50"}, "args")
    assert preset is not None
    architecture = preset.architecture
    assert (architecture.seq_len, architecture.class_num, architecture.diffloss_d) == (4, 7, 12)
    assert architecture.encoder_depth == 12
    assert preset.settings == Settings(num_iter=4, steps="ddim50", cfg=2.9)
    assert preset.classes == ()  # the paper's are a thousand


@pytest.mark.parametrize("model", ["vit_base", None, 3, ["mar_base"]])
def test_options_of_an_unknown_model_say_nothing(model: Any) -> None:
    assert preset_from_options(OPTIONS | {"model": model}, "args") is None
    assert preset_from_options({}, "args") is None


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("img_size", 0, "args: architecture.img_size: 0; "),
        ("img_size", 8, "args: architecture: an image of this size has no token"),
        ("diffloss_w", "wide", "args: architecture.diffloss_w: 'wide'; "),
        ("class_num", None, "args: architecture.class_num: None; "),
        ("num_sampling_steps", "1", "args: settings.steps: 1; allowed are 2 to 1000"),
        ("num_sampling_steps", None, "args: settings.steps: 'None'; allowed are"),
    ],
)
def test_an_option_that_makes_no_model_is_named(
    option: str, value: Any, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    options = argparse.Namespace(**OPTIONS | {option: value})
    torch.save({"model": tiny_weights(), "args": options}, path)
    with pytest.raises(CheckpointError) as error:
        marfast.load(path)
    assert str(error.value).startswith(f"{path}: not readable as .pth: {said}")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A model that the options can name, small enough to have its weights in a test."""
    preset = Preset(TINY, Settings(num_iter=4, cfg=2.0))
    monkeypatch.setitem(MAR_PRESETS, "mar_tiny", preset)
    return preset


def tiny_options(**changes: Any) -> dict[str, Any]:
    names = ("img_size", "vae_stride", "patch_size", "vae_embed_dim", "class_num", "buffer_size")
    own = {name: getattr(TINY, name) for name in (*names, "diffloss_d", "diffloss_w")}
    return {"model": "mar_tiny", "num_sampling_steps": "7", "cfg": 1.0, **own, **changes}


def test_a_training_checkpoint_needs_no_preset(tiny: Preset, tmp_path: Path) -> None:
    path, ema = tmp_path / "checkpoint-last.pth", tiny_weights(seed=9)
    torch.save(training_checkpoint(tiny_weights(), ema, **tiny_options()), path)
    model = marfast.load(path)
    assert torch.equal(model.model.module.mask_token, ema["mask_token"])
    assert model.settings == Settings(num_iter=4, cfg=2.0, steps=7)
    assert model.generate([1], seed=0).isfinite().all()
    report = model.report
    assert report is not None
    assert (report.file, report.entry, report.preset) == (str(path), "model_ema", "mar_tiny")
    assert report.left_out == ("model", "optimizer", "epoch", "scaler", "args")
    assert report.parameters == sum(value.numel() for value in ema.values())
    assert (report.dtypes, report.bytes) == (("float32",), 4 * report.parameters)


def test_a_preset_of_another_architecture_contradicts_a_file(tiny: Preset, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(training_checkpoint(tiny_weights(), tiny_weights(), **tiny_options()), path)
    with pytest.raises(ValueError) as error:
        marfast.load(path, preset="mar_base")
    assert str(error.value) == (
        f"preset: mar_base contradicts {path}, which says img_size 16, not 256; "
        "vae_stride 1, not 16; patch_size 4, not 1 and 11 more"
    )
    other = Preset(TINY, Settings(num_iter=2, cfg=5.0))  # settings are free
    assert marfast.load(path, preset=other).settings.cfg == 5.0


def test_a_preset_of_another_architecture_contradicts_a_folder(tmp_path: Path) -> None:
    save_file(tiny_weights(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(Preset(TINY, Settings(num_iter=2)).to_dict()))
    with pytest.raises(ValueError, match=r"preset: fashion-mnist contradicts .*says img_size 16"):
        marfast.load(tmp_path, preset="fashion-mnist")


def test_a_folder_of_several_models_needs_the_presets_name(tiny: Preset, tmp_path: Path) -> None:
    weights = tiny_weights()
    save_file(weights, tmp_path / "mar-tiny.safetensors")
    save_file({"decoder.conv_in.bias": torch.zeros(1)}, tmp_path / "kl16.safetensors")
    (tmp_path / "config.json").write_text('{"_class_name": "Other"}')  # of another program
    module = marfast.load(tmp_path, preset="mar_tiny").model.module
    assert torch.equal(module.mask_token, weights["mask_token"])
    for preset in (None, "mar_base", get_preset("fashion-mnist")):
        with pytest.raises(FileNotFoundError, match=r"there: kl16\.safetensors, mar-tiny\.safe"):
            marfast.load(tmp_path, preset=preset)
