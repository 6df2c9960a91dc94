"""`convert`: what it writes loads as the original does, whole or not at all."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import Preset, Settings, conversion
from marfast.checkpoints.conversion import convert
from marfast.errors import ArgumentError
from tests.cli.program import files
from tests.models import TINY, tiny_weights, training_checkpoint

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
PRESET = Preset(TINY, Settings(num_iter=4, steps=3, clip_denoised=True), tuple("abcdefghij"))


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-last.pth"
    torch.save(training_checkpoint(tiny_weights(seed=9), tiny_weights()), path)
    return path


@pytest.mark.parametrize("out", ["folder", "deep/folder", "a.safetensors", "v1.0/a.SafeTensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_written_loads_without_a_preset(
    out: str, dtype: str, pth: Path, tmp_path: Path
) -> None:
    done = convert(pth, tmp_path / out, PRESET, dtype=dtype)
    model = marfast.load(tmp_path / out)
    assert (model.settings, model.classes) == (PRESET.settings, PRESET.classes)
    for name, value in tiny_weights().items():
        expected = value.to(getattr(torch, dtype)).float()
        assert torch.equal(model.model.module.state_dict()[name], expected), name
    assert (done.read.entry, done.dtype) == ("model_ema", dtype)
    assert done.bytes == done.read.parameters * getattr(torch, dtype).itemsize
    (tmp_path / "usual").touch()
    written = [path for path in (tmp_path / out.split("/")[0]).rglob("*") if path.is_file()]
    for path in written or [tmp_path / out]:
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert model.report is not None
    assert (model.report.bytes, model.report.dtypes) == (done.bytes, (dtype,))


@pytest.mark.parametrize("out", ["folder", "a.safetensors"])
def test_classes_get_other_names(out: str, pth: Path, tmp_path: Path) -> None:
    names = [f"kind {i}" for i in range(10)]
    convert(pth, tmp_path / out, PRESET, classes=names)
    assert marfast.load(tmp_path / out).classes == tuple(names)
    with pytest.raises(ArgumentError, match="classes: 9 names; allowed are 10, one for each"):
        convert(pth, tmp_path / "other", PRESET, classes=names[1:])
    assert not (tmp_path / "other").exists()


def test_a_folder_is_config_and_weights(pth: Path, tmp_path: Path) -> None:
    convert(pth, tmp_path / "out", PRESET)
    assert sorted(files(tmp_path / "out")) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "out/config.json").read_text())["classes"] == list("abcdefghij")
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_same_images_come_from_every_form(pth: Path, tmp_path: Path) -> None:
    convert(pth, tmp_path / "folder", PRESET)
    convert(tmp_path / "folder", tmp_path / "one.safetensors")
    first = marfast.load(pth, PRESET).generate([1, 2], seed=3)
    for form in ("folder", "one.safetensors"):
        assert torch.equal(marfast.load(tmp_path / form).generate([1, 2], seed=3), first)


def test_the_other_entry_can_be_converted(pth: Path, tmp_path: Path) -> None:
    done = convert(pth, tmp_path / "out", PRESET, weights="model")
    module = marfast.load(tmp_path / "out").model.module
    assert torch.equal(module.mask_token, tiny_weights(seed=9)["mask_token"])
    assert done.read.entry == "model"


def test_force_replaces_what_convert_wrote_and_nothing_else(pth: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "out", tmp_path / "one.safetensors"):
        convert(pth, out, PRESET)
        with pytest.raises(FileExistsError, match=r"^out: .* exists; force replaces it"):
            convert(pth, out, PRESET, weights="model")
        convert(pth, out, PRESET, weights="model", force=True)
        module = marfast.load(out).model.module
        assert torch.equal(module.mask_token, tiny_weights(seed=9)["mask_token"])
    (tmp_path / "out/notes.txt").write_text("precious")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"out has other files, such as notes\.txt"):
        convert(pth, tmp_path / "out", PRESET, force=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("out", ["folder", "one.safetensors"])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_run_leaves_nothing(
    error: Any, out: str, there: bool, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        convert(pth, tmp_path / out, PRESET)
    before = files(tmp_path)

    def interrupted(tensors: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OSError):
        convert(pth, tmp_path / out, PRESET, weights="model", force=True)
    assert files(tmp_path) == before
    assert not any(path.name.startswith(".marfast") for path in tmp_path.iterdir())


@pytest.mark.parametrize("out", ["folder", "one.safetensors"])
def test_of_two_at_once_one_is_told_of_the_other(
    out: str, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = safetensors.torch.save_file, []

    def meanwhile(*args: Any) -> None:
        for force in (False, True):
            with pytest.raises(OSError, match=r"^out: can't write .*another process is writing"):
                convert(pth, tmp_path / out, PRESET, force=force)
            seen.append(force)
        save(*args)

    monkeypatch.setattr(safetensors.torch, "save_file", meanwhile)
    convert(pth, tmp_path / out, PRESET)
    assert seen == [False, True]
    assert sorted(os.listdir(tmp_path)) == sorted([pth.name, out])


@pytest.mark.parametrize("out", ["folder", "one.safetensors"])
def test_what_others_write_meanwhile_stays(
    out: str, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, target = safetensors.torch.save_file, tmp_path / out

    def meanwhile(*args: Any) -> None:
        save(*args)
        if out == "folder":
            target.mkdir(exist_ok=True)
            (target / "notes.txt").write_text("precious")
        else:
            target.write_text("precious")

    monkeypatch.setattr(safetensors.torch, "save_file", meanwhile)
    with pytest.raises(FileExistsError):
        convert(pth, target, PRESET)
    if out == "folder":
        with pytest.raises(FileExistsError, match=r"has other files, such as notes\.txt"):
            convert(pth, target, PRESET, force=True)
    names = [pth.name, f"{out}/notes.txt" if out == "folder" else out]
    assert sorted(files(tmp_path)) == sorted(names)


def test_leftovers_of_a_dead_process_go(pth: Path, tmp_path: Path) -> None:
    left = tmp_path / ".marfast-abcdefgh.part"
    (left / "new/out").mkdir(parents=True)
    (left / "new/out/model.safetensors").write_bytes(b"half")
    (left / "old/aside").mkdir(parents=True)
    convert(pth, tmp_path / "out", PRESET)
    assert sorted(os.listdir(tmp_path)) == sorted([pth.name, "aside", "out"])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x" * 300, "too long"),
        ("x" * 300 + "/deep", "too long"),
        ("new/" + "x" * 300 + ".safetensors", "too long"),
        ("file/deep", "can't write"),
        ("file", "file is there and no folder"),
        ("pipe", "pipe is there and no folder"),
        ("pipe.safetensors", r"pipe\.safetensors is there and no plain file"),
        pytest.param("/proc/out", "can't write", marks=on_linux),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_cannot_be_written_is_found_before_weights_are_read(
    out: str, said: str, force: bool, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("precious")
    for pipe in ("pipe", "pipe.safetensors"):
        os.mkfifo(tmp_path / pipe)
    before = sorted(os.listdir(tmp_path))

    def check(*_: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(conversion.Checkpoint.__annotations__["file"], "check", check)
    with pytest.raises(OSError, match=rf"^out: .*{said}"):
        convert(pth, tmp_path / out, PRESET, force=force)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("folder", "folder"),
        ("folder", "."),
        ("folder/model.safetensors", "folder"),
        ("folder/model.safetensors", "folder/model.safetensors"),
        ("link.safetensors", "folder/model.safetensors"),
        ("folder/model.safetensors", "link.safetensors"),
    ],
)
def test_nothing_is_converted_in_place(
    source: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder/config.json").write_text(json.dumps(PRESET.to_dict()))
    save_file(tiny_weights(), "folder/model.safetensors")
    Path("link.safetensors").symlink_to("folder/model.safetensors")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="is or holds what is to be converted"):
        convert(source, out, PRESET, force=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "int8"}, "dtype: 'int8'; allowed are float32, float16, bfloat16"),
        ({"weights": "ema"}, "weights: 'ema'; allowed are"),
        ({"preset": "mar_tiny"}, "preset: 'mar_tiny'; allowed are"),
        ({"out": "out.pth"}, r"out: .*out\.pth; allowed are a \.safetensors file or a folder"),
        ({"model": "nothing"}, "model: 'nothing' is neither"),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], said: str, pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        convert(**{"model": pth, "out": "out", "preset": PRESET} | options)
    assert files(tmp_path) == before


def test_weights_too_large_for_half_precision_are_named(tmp_path: Path) -> None:
    path, weights = tmp_path / "a.safetensors", tiny_weights()
    weights["z_proj.bias"][3] = 1e5
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"dtype: float16; .*a\.safetensors: z_proj\.bias has val"):
        convert(path, tmp_path / "out", PRESET, dtype="float16")
    assert os.listdir(tmp_path) == ["a.safetensors"]
    convert(path, tmp_path / "out", PRESET, dtype="bfloat16")
