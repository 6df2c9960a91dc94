"""What a model is saved as loads as it was; to the Hub goes the same folder."""

import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch

import marfast
from marfast.errors import ArgumentError
from marfast.generation import Pipeline
from tests.cli.program import files
from tests.models import tiny_pipeline

COMMIT = "https://huggingface.co/somebody/shoes/commit/0123"


@pytest.fixture
def changed() -> Pipeline:
    """A model that is no longer what was loaded."""
    model = marfast.load("fashion-mnist", steps=4)
    with torch.no_grad():
        model.model.module.mask_token += 1
    model.classes = tuple(f"kind {i}" for i in range(10))
    return model


@pytest.mark.parametrize("out", ["folder", "one.safetensors"])
def test_what_is_saved_is_the_model_as_it_is_now(
    changed: Pipeline, out: str, tmp_path: Path
) -> None:
    changed.save(tmp_path / out)
    again = marfast.load(tmp_path / out)
    assert (again.settings, again.classes) == (changed.settings, changed.classes)
    images = [model.generate(["kind 3"], seed=1, num_iter=2) for model in (changed, again)]
    assert torch.equal(*images)
    with pytest.raises(FileExistsError, match="force replaces it"):
        changed.save(tmp_path / out)
    changed.save(tmp_path / out, dtype="bfloat16", force=True)
    report = marfast.load(tmp_path / out).report
    assert report is not None
    assert report.dtypes == ("bfloat16",)


def test_a_push_is_a_folder_that_load_takes_by_its_name(
    changed: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is one whose repositories lie in the cache; its calls are huggingface_hub's."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    api = create_autospec(hub.HfApi)

    def upload(*, repo_id: str, folder_path: Path, **more: Any) -> Any:
        assert api.return_value.create_repo.called
        there = tmp_path / f"models--{repo_id.replace('/', '--')}" / "snapshots" / "0123"
        shutil.copytree(folder_path, there)
        return hub.CommitInfo(COMMIT, more["commit_message"], "", "0123")

    api.return_value.upload_folder.side_effect = upload
    monkeypatch.setattr(hub, "HfApi", api)
    said = changed.push("somebody/shoes", private=True, token="secret", commit_message="Shoes")
    assert said == COMMIT
    api.assert_called_once_with(token="secret")
    api.return_value.create_repo.assert_called_once_with(
        "somebody/shoes", private=True, exist_ok=True
    )
    assert {*files(tmp_path / "models--somebody--shoes")} == {
        f"snapshots/0123/{name}" for name in ("config.json", "model.safetensors")
    }
    again = marfast.load("somebody/shoes")
    assert (again.settings, again.classes) == (changed.settings, changed.classes)
    assert torch.equal(again.model.module.mask_token, changed.model.module.mask_token)


def test_what_cannot_be_pushed(changed: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="repository: 'shoes'; allowed are names as"):
        changed.push("shoes")
    with pytest.raises(ArgumentError, match="model: was not loaded"):
        tiny_pipeline().save("nowhere")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        changed.push("somebody/shoes")
