"""`marfast.load`: what loads, and what each broken file says."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.torch_version import TorchVersion

import marfast
from marfast.checkpoints import CheckpointError, Preset, Settings, embedded_models
from marfast.checkpoints.presets import LARGEST_CONFIG
from marfast.checkpoints.read import METADATA
from tests.models import TINY, tiny_weights, training_checkpoint

PRESET = Preset(TINY, Settings(num_iter=4, steps=3, clip_denoised=True))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return tiny_weights()


def test_the_embedded_model_makes_images() -> None:
    model = marfast.load("fashion-mnist")
    assert model.classes[7] == "sneaker"
    assert model.model.module.training is False
    images = model.generate([7, 1], seed=0, num_iter=2, steps=4)
    assert images.shape == (2, 1, 28, 28)
    assert images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1


def test_embedded_files_stay_small() -> None:
    folder = embedded_models()["fashion-mnist"]
    assert sum(f.stat().st_size for f in folder.iterdir()) < 10 << 20
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("kind", ["safetensors", "folder", "pth", "bare_pth", "config_file"])
def test_every_kind_of_file_gives_the_same_model(
    kind: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    preset: Any = PRESET
    path = tmp_path / "model.safetensors"
    if kind == "folder":
        save_file(weights, path)
        (tmp_path / "config.json").write_text(json.dumps(PRESET.to_dict()))
        path, preset = tmp_path, None
    elif kind == "pth":
        path = tmp_path / "checkpoint-last.pth"
        torch.save(training_checkpoint(tiny_weights(seed=9), weights), path)
    elif kind == "bare_pth":
        path = tmp_path / "weights.pth"
        torch.save(weights, path)
    else:
        save_file(weights, path)
    if kind == "config_file":
        preset = tmp_path / "tiny.json"
        preset.write_text(json.dumps(PRESET.to_dict()))
    model = marfast.load(path, preset=preset)
    assert model.settings == PRESET.settings
    for name, value in model.model.module.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_entry_of_a_pth_can_be_chosen(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    ema = tiny_weights(seed=9)
    torch.save({"model": weights, "model_ema": ema}, path)
    model = marfast.load(path, preset=PRESET, weights="model").model.module
    assert torch.equal(model.mask_token, weights["mask_token"])


def test_half_precision_files_load_as_float32(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    save_file({k: v.half() for k, v in weights.items()}, path)
    module = marfast.load(path, preset=PRESET).model.module
    assert module.mask_token.dtype == torch.float32
    assert torch.equal(module.mask_token, weights["mask_token"].half().float())


def remove(weights: dict[str, torch.Tensor]) -> None:
    del weights["mask_token"]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["surplus"] = torch.zeros(1)


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["z_proj.weight"] = torch.zeros(3, 5)


def poison(weights: dict[str, torch.Tensor]) -> None:
    weights["z_proj.bias"][0] = float("nan")


def overflow(weights: dict[str, torch.Tensor]) -> None:
    weights["z_proj.bias"] = torch.full((32,), 1e300, dtype=torch.float64)


def retype(weights: dict[str, torch.Tensor]) -> None:
    weights["z_proj.bias"] = torch.zeros(32, dtype=torch.int64)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove, "misses mask_token"),
        (add, "has surplus"),
        (reshape, "z_proj.weight has shape [3, 5]; this model's is [32, 16]"),
        (poison, "z_proj.bias has values that are not finite"),
        (overflow, "z_proj.bias has values that are not finite in float32"),
        (retype, "z_proj.bias is torch.int64"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    suffix: str, damage: Any, said: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    damage(weights)
    path = tmp_path / f"bad{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    with pytest.raises(CheckpointError) as error:
        marfast.load(path, preset=PRESET)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_eight_bits_are_too_few(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    weights["z_proj.bias"] = torch.zeros(32).to(torch.float8_e4m3fn)
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"z_proj\.bias is torch\.float8_e4m3fn"):
        marfast.load(tmp_path / "a.safetensors", preset=PRESET)
    with pytest.raises(CheckpointError, match=r"holds torch\._utils\._rebuild_tensor_v3"):
        marfast.load(tmp_path / "a.pth", preset=PRESET)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1])
def test_a_truncated_file_is_named(
    suffix: str, keep: int, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"cut{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not readable") as error:
        marfast.load(path, preset=PRESET)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_code_in_a_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Payload()}, "evil.pth")
    with pytest.raises(CheckpointError) as error:
        marfast.load("evil.pth", preset=PRESET)
    said = f"holds {os.system.__module__}.system, which is not read"
    assert str(error.value) == f"evil.pth: not readable as .pth: {said}"
    assert not (tmp_path / "executed").exists()


def test_an_object_in_a_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": nn.Linear(2, 2)}, path)
    with pytest.raises(CheckpointError) as error:
        marfast.load(path, preset=PRESET)
    said = "holds torch.nn.modules.linear.Linear, which is not read"
    assert str(error.value) == f"{path}: not readable as .pth: {said}"


def test_files_that_are_not_weights_are_named(tmp_path: Path) -> None:
    garbage, archive, old = tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "c.pth"
    garbage.write_bytes(b"not a pickle")
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("constants.pkl", "data.pkl", "version"):  # as TorchScript's
            file.writestr(f"a/{name}", b"3")
    torch.save({}, old, _use_new_zipfile_serialization=False)
    for path, said in (
        (garbage, "not a whole zip archive"),
        (archive, "is a TorchScript archive"),
        (old, "not a whole zip archive, which is what torch.save has written since torch 1.6"),
    ):
        with pytest.raises(CheckpointError) as error:
            marfast.load(path, preset=PRESET)
        assert str(error.value).startswith(f"{path}: not readable as .pth: {said}")
        assert "\n" not in str(error.value)


def test_tensors_without_values_of_their_own_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    for odd in (torch.zeros(32, device="meta"), torch.zeros(32).to_sparse()):
        torch.save(weights | {"z_proj.bias": odd}, path)
        with pytest.raises(CheckpointError, match=r"holds torch\._utils\._rebuild_"):
            marfast.load(path, preset=PRESET)


def test_weights_outlive_their_file(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pth")
    for path in sorted(tmp_path.iterdir()):
        module = marfast.load(path, preset=PRESET).model.module
        with path.open("r+b") as file:  # as a training run writes its next checkpoint
            file.write(bytes(path.stat().st_size))
        for name, value in module.state_dict().items():
            assert torch.equal(value, weights[name]), (path.name, name)


def test_many_weights_in_few_bytes_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path, numbers = tmp_path / "a.pth", torch.zeros(max(map(torch.numel, weights.values())))
    torch.save({k: numbers[: v.numel()].view(v.shape) for k, v in weights.items()}, path)
    with pytest.raises(CheckpointError, match=r"\d+ bytes of weights in a file of \d+"):
        marfast.load(path, preset=PRESET)


def test_a_suffix_may_be_in_capitals(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.PTH")
    save_file(weights, tmp_path / "a.SafeTensors")
    for path in tmp_path.iterdir():
        module = marfast.load(path, preset=PRESET).model.module
        assert torch.equal(module.mask_token, weights["mask_token"])


def test_what_is_missing_or_unknown_is_said(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(weights, path)
    with pytest.raises(FileNotFoundError, match="'nowhere' is neither an embedded model"):
        marfast.load("nowhere")
    with pytest.raises(ValueError, match="preset: none given"):
        marfast.load(path)
    with pytest.raises(ValueError, match="preset: 'mar_tiny'; allowed are mar_base"):
        marfast.load(path, preset="mar_tiny")
    with pytest.raises(ValueError, match="weights: 'ema'"):
        marfast.load(path, preset=PRESET, weights="ema")
    with pytest.raises(FileNotFoundError, match=r"safetensors: .*; \.safetensors there: a\.safe"):
        marfast.load(tmp_path)
    path.rename(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file, and no preset"):
        marfast.load(tmp_path)
    (tmp_path / "weights.h5").touch()
    with pytest.raises(CheckpointError, match="unknown kind of file"):
        marfast.load(tmp_path / "weights.h5", preset=PRESET)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds list"):
        marfast.load(tmp_path / "list.pth", preset=PRESET)
    for odd in (None, [], torch.zeros(1)):
        torch.save({"model": weights, "model_ema": odd}, tmp_path / "odd.pth")
        said = f"odd.pth: model_ema is {type(odd).__name__}, not a state_dict"
        with pytest.raises(CheckpointError, match=said):
            marfast.load(tmp_path / "odd.pth", preset=PRESET)
        marfast.load(tmp_path / "odd.pth", preset=PRESET, weights="model")
    torch.save({"model": {}}, tmp_path / "no_ema.pth")
    with pytest.raises(CheckpointError, match="no entry 'model_ema'"):
        marfast.load(tmp_path / "no_ema.pth", preset=PRESET, weights="model_ema")


def test_an_older_torch_reads_no_pickle(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    with pytest.raises(CheckpointError) as error:
        marfast.load(tmp_path / "a.pth", preset=PRESET)
    assert str(error.value) == (
        f"{tmp_path / 'a.pth'}: not readable as .pth: needs torch 2.10, and this is 2.9.1+cpu; "
        "`marfast convert` with a newer one makes it a .safetensors, which any torch reads"
    )
    marfast.load(tmp_path / "a.safetensors", preset=PRESET)


def test_a_large_config_in_a_safetensors_is_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, tmp_path / "a.safetensors", {METADATA: " " * (LARGEST_CONFIG + 1)})
    with pytest.raises(CheckpointError, match=r"marfast\.config: allowed are up to 1048576 bytes"):
        marfast.load(tmp_path / "a.safetensors", preset=PRESET)
