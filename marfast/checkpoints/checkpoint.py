"""From what a user names to a file and what it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .presets import Preset, embedded_models, get_preset, read_config
from .read import read_checkpoint

PresetLike = str | Path | Mapping[str, Any] | Preset | None


def find_model(model: str | Path, preset: PresetLike = None) -> tuple[Path, Preset]:
    """The file that holds a model's weights, and what the model is, as `marfast.load` takes them.

    No weights are read, so that a caller can check more before they are. Raises FileNotFoundError
    or ValueError: for what is not there, for a model that nothing says what it is, and for a preset
    of another architecture than the file says.
    """
    given = None if preset is None else get_preset(preset)
    path = embedded_models().get(str(model), Path(model))
    if not path.exists():
        names = ", ".join(embedded_models())
        raise FileNotFoundError(
            f"model: {str(model)!r} is neither an embedded model ({names}) nor a file or folder"
        )
    if path.is_dir():
        path, said = _in_folder(path, given)
    else:
        said = read_checkpoint(path).preset
    if given is None:
        if said is None:
            raise ValueError(
                f"preset: none given, and {path} does not say what model it holds; name one, "
                "such as mar_base"
            )
        return path, said
    if said is not None and (differences := said.architecture.differences(given.architecture)):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"preset: {given.name or 'the given one'} contradicts {path}, which says "
            + "; ".join(differences[:3])
            + more
        )
    return path, given


def _in_folder(folder: Path, given: Preset | None) -> tuple[Path, Preset | None]:
    """model.safetensors with its config.json, or the file that is named as the given preset is."""
    path, config = folder / "model.safetensors", folder / "config.json"
    if path.is_file() and config.is_file():
        return path, read_config(config)
    if not path.is_file() and given is not None and given.name is not None:
        path = folder / f"{given.name.replace('_', '-')}.safetensors"  # mar-base.safetensors
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"{folder / 'model.safetensors'}: no such file; .safetensors there: {there}"
        )
    said = read_checkpoint(path).preset
    if said is None and given is None:
        raise FileNotFoundError(f"{config}: no such file, and no preset was given")
    return path, said
