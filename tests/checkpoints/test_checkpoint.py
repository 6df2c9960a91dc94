"""`find`: a checkpoint is opened once, and handed on."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import Preset, Settings, convert, embedded_models, find, inspect
from marfast.errors import ArgumentError, MissingFile
from tests.cli.program import invoke
from tests.models import TINY, tiny_weights

PRESET = Preset(TINY, Settings(num_iter=2, steps=3))


@pytest.fixture(params=["a.pth", "a.safetensors", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    if path.suffix == ".pth":
        torch.save({"model": tiny_weights()}, path)
    elif path.suffix == ".safetensors":
        save_file(tiny_weights(), path)
    else:
        path.mkdir()
        save_file(tiny_weights(), path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(PRESET.to_dict()))
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was opened, by its name."""
    counts = Counter[str]()

    def counting(open_file: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *args: Any, **options: Any) -> Any:
            counts[Path(path).name] += 1
            return open_file(path, *args, **options)

        return counted

    monkeypatch.setattr(torch, "load", counting(torch.load))
    monkeypatch.setattr(safetensors, "safe_open", counting(safetensors.safe_open))
    return counts


def run(*arguments: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("use", ["load", "inspect", "convert", "generate", "info", "hand on"])
def test_a_checkpoint_is_opened_once(
    use: str, path: Path, opened: Counter[str], tmp_path: Path
) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(PRESET.to_dict()))
    given = f"--preset={config}"
    match use:
        case "load":
            marfast.load(path, PRESET)
        case "inspect":
            inspect(path, PRESET)
        case "convert":
            convert(path, tmp_path / "out", PRESET)
        case "generate":
            out = f"--out={tmp_path / 'a.png'}"
            run("generate", "--labels=3", out, f"--model={path}", given)
        case "info":
            run("info", f"--model={path}", given)
        case "hand on":
            checkpoint = find(path, PRESET)
            marfast.load(checkpoint)
            inspect(checkpoint)
            convert(checkpoint, tmp_path / "out")
    name = "model.safetensors" if path.is_dir() else path.name
    assert opened == {name: 1}


def test_an_open_checkpoint_has_no_copy_of_its_file(path: Path) -> None:
    file = find(path, PRESET).file
    with file.path.open("r+b") as written:
        written.write(bytes(file.path.stat().st_size))
    assert not any(weight.any() for weight in file.weights.values())


def test_an_open_checkpoint_takes_nothing_more(path: Path) -> None:
    checkpoint = find(path, PRESET)
    for name, given in (("preset", PRESET), ("weights", "model")):
        with pytest.raises(ArgumentError, match=f"{name}: given for a checkpoint that is open"):
            marfast.load(checkpoint, **{name: given})


def test_an_error_is_both_of_its_argument_and_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as error:
        find(tmp_path / "nowhere")
    assert isinstance(error.value, FileNotFoundError)
    assert error.value.name == "model"
    assert error.value.problem in str(error.value)


def test_a_repository_in_hugging_faces_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--shoes"
    snapshot = repository / "snapshots" / "0123abc"
    shutil.copytree(embedded_models()["fashion-mnist"], snapshot)
    (repository / "snapshots" / "older").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    for model in ("somebody/shoes", repository, snapshot):
        assert find(model).file.path == snapshot / "model.safetensors"
    assert find("somebody/shoes").name == "somebody/shoes"
    with pytest.raises(FileNotFoundError, match="nor a repository in Hugging Face's cache"):
        find("somebody/boots")
