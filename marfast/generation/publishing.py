"""A loaded model as files again: in a folder, or in a repository of the Hugging Face Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory

from marfast.checkpoints import Architecture, Checkpoint, Preset
from marfast.checkpoints.conversion import convert
from marfast.checkpoints.hub import is_repository
from marfast.checkpoints.read import WeightFile
from marfast.errors import ArgumentError
from marfast.generation.loaded import Loaded


def checkpoint_of(loaded: Loaded) -> Checkpoint:
    """Its weights, settings and classes as they are now; ArgumentError where no checkpoint was
    loaded, which would say what architecture it is."""
    if (read := loaded.report) is None:
        raise ArgumentError("model", "was not loaded", "allowed are those of marfast.load")
    architecture = Architecture(**dict(read.architecture))  # type: ignore[arg-type]
    preset = Preset(architecture, loaded.settings, tuple(loaded.classes))
    weights = loaded.model.module.state_dict()
    file = WeightFile(Path(read.file), weights, "original", None, (), preset)
    return Checkpoint(file, preset, read.name)


def save(loaded: Loaded, out: str | Path, dtype: str, force: bool) -> None:
    convert(checkpoint_of(loaded), out, dtype=dtype, force=force)


def push(
    loaded: Loaded, repository: str, dtype: str, private: bool | None, token: str | None, said: str
) -> str:
    if not is_repository(repository):
        raise ArgumentError("repository", repr(repository), 'allowed are names as "owner/name"')
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ImportError("push needs huggingface_hub: pip install huggingface_hub") from None
    with TemporaryDirectory() as folder:
        save(loaded, Path(folder) / "model", dtype, force=False)
        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=Path(folder) / "model", commit_message=said
        )
    return str(done.commit_url)
