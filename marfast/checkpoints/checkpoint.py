"""From what a user names to an open file and what model it holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marfast.checkpoints.hub import newest_snapshot, snapshot_of
from marfast.checkpoints.presets import Preset, embedded_models, get_preset, read_config
from marfast.checkpoints.read import WeightFile, read_weights
from marfast.errors import ArgumentError, MissingFile

PresetLike = str | Path | Mapping[str, Any] | Preset | None


@dataclass(frozen=True)
class Checkpoint:
    """A model's file, opened, and what the model is. It can be handed on in the place of a name."""

    file: WeightFile
    preset: Preset
    name: str
    """As it was named, but for the folders of an absolute path, which tell of a machine."""


ModelLike = str | Path | Checkpoint


def find(model: ModelLike, preset: PresetLike = None, weights: str | None = None) -> Checkpoint:
    """Open what `marfast.load` would load: an embedded model, a file or a folder.

    No values are read, so that a caller can check more before they are. A Checkpoint is taken as it
    is, without `preset` and `weights`.

    Raises FileNotFoundError or ValueError: ArgumentError, naming `model`, `preset` or `weights`, or
    CheckpointError for what is in the file.
    """
    if isinstance(model, Checkpoint):
        for name, given in (("preset", preset), ("weights", weights)):
            if given is not None:
                raise ArgumentError(name, "given for a checkpoint that is open")
        return model
    chosen = None if preset is None else get_preset(preset)
    name = Path(model).name if Path(model).is_absolute() else str(model)
    path = embedded_models().get(str(model), Path(model))
    if not path.exists():
        path = snapshot_of(str(model)) or path
    if not path.exists():
        names = ", ".join(embedded_models())
        raise MissingFile(
            "model",
            f"{str(model)!r} is neither an embedded model ({names}) nor a file or folder, nor a "
            "repository in Hugging Face's cache",
        )
    path = newest_snapshot(path) or path
    in_folder = path.is_dir()
    path, said = _in_folder(path, chosen) if in_folder else (path, None)
    file = read_weights(path, weights)
    said = said or file.preset
    if chosen is not None:
        _check_consistent(path, said, chosen)
        return Checkpoint(file, chosen, name)
    if said is not None:
        return Checkpoint(file, said, name)
    if in_folder:
        raise FileNotFoundError(
            f"{path.parent / 'config.json'}: no such file, and no preset was given"
        )
    raise ArgumentError(
        "preset",
        f"none given, and {path} does not say what model it holds",
        "name one, such as mar_base",
    )


def _in_folder(folder: Path, chosen: Preset | None) -> tuple[Path, Preset | None]:
    """model.safetensors with its config.json, or the file that is named as the chosen preset is."""
    path, config = folder / "model.safetensors", folder / "config.json"
    if path.is_file():
        return path, read_config(config) if config.is_file() else None
    if chosen is not None and chosen.name is not None:
        path = folder / f"{chosen.name.replace('_', '-')}.safetensors"  # mar-base.safetensors
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"{folder / 'model.safetensors'}: no such file; .safetensors there: {there}"
        )
    return path, None


def _check_consistent(path: Path, said: Preset | None, chosen: Preset) -> None:
    """Raise ArgumentError where a file says another architecture than was chosen."""
    if said is None or not (differ := said.architecture.differences(chosen.architecture)):
        return
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    raise ArgumentError(
        "preset",
        f"{chosen.name or 'the given one'} contradicts {path}, which says "
        + "; ".join(differ[:3])
        + more,
    )
