"""`marfast convert`: from a checkpoint to safetensors that say what they hold."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from marfast.checkpoints.checkpoint import Checkpoint, ModelLike, PresetLike, find
from marfast.checkpoints.read import METADATA
from marfast.checkpoints.report import Report
from marfast.errors import ArgumentError, ExistingFile, PathError
from marfast.files import claimed, replacing, sweep

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FILES = ("config.json", "model.safetensors")
"""In a folder."""


@dataclass(frozen=True)
class Conversion:
    """What was read, and what was written."""

    read: Report
    out: str
    dtype: str
    bytes: int
    """Of the weights, as written."""


def convert(
    model: ModelLike,
    out: str | Path,
    preset: PresetLike = None,
    *,
    weights: str | None = None,
    dtype: str = "float32",
    classes: Sequence[str] | None = None,
    force: bool = False,
) -> Conversion:
    """Write a model's weights as safetensors, with what the model is.

    model, preset, weights: as `marfast.load` takes them.
    out: a folder (config.json and model.safetensors), or one .safetensors with the config in its
        metadata. It is there whole or not at all, and so is what it replaces: written under another
        name, then renamed or exchanged in one step (`marfast.files`).
    dtype: "float32", "float16" or "bfloat16".
    classes: names of the classes, in order, in place of those that the model has.
    force: replace a file, or a folder that holds nothing but these two files.

    Raises ArgumentError (some are a FileExistsError or FileNotFoundError, too), or as `load` does.
    """
    if dtype not in DTYPES:
        raise ArgumentError("dtype", repr(dtype), f"allowed are {', '.join(DTYPES)}")
    from safetensors import SafetensorError

    checkpoint = find(model, preset, weights)
    if classes is not None:
        checkpoint = replace(checkpoint, preset=checkpoint.preset.with_classes(classes))
    target = Path(os.path.realpath(out))
    try:
        _check_target(target, checkpoint.file.path, force)
        with claimed(target):
            size = _write(checkpoint, target, dtype, force)
    except PathError:
        raise
    except FileExistsError as error:
        raise ExistingFile("out", f"{target} exists", "force replaces it") from error
    except (OSError, SafetensorError) as error:
        raise PathError("out", f"can't write {target} ({error})") from error
    return Conversion(Report.of(checkpoint), str(out), dtype, size)


def _write(checkpoint: Checkpoint, target: Path, dtype: str, force: bool) -> int:
    """Bytes of the weights that were written."""
    source, found = checkpoint.file, checkpoint.preset
    sweep(target.parent)
    source.check(found.architecture.build())
    converted = source.copies(DTYPES[dtype])
    for key, value in converted.items():
        if not torch.isfinite(value).all():
            said = f"{source.path}: {key} has values that are too large for it"
            raise ArgumentError("dtype", dtype, said)

    config = json.dumps(found.to_dict(), indent=2)
    with replacing(target, force=force) as new:
        if _is_file(target):
            _save(converted, new, {METADATA: config})
        else:
            new.mkdir()
            (new / "config.json").write_text(config + "\n", encoding="utf-8")
            _save(converted, new / "model.safetensors", {})
        _check_target(target, source.path, force)  # others may have written meanwhile
    return sum(value.nbytes for value in converted.values())


def _save(weights: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """With the permissions that any new file has here: safetensors makes its own private."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(weights, path, {"format": "pt", **metadata})
    path.chmod(mode)


def _is_file(target: Path) -> bool:
    return target.suffix.lower() == ".safetensors" and not target.is_dir()


def _check_target(target: Path, source: Path, force: bool) -> None:
    """Raise ArgumentError unless `target` may be written, or replaced."""
    if target.suffix and not _is_file(target) and not target.is_dir():
        raise ArgumentError("out", target, "allowed are a .safetensors file or a folder")
    real = Path(os.path.realpath(source))
    if target in (real, *real.parents):
        raise ArgumentError(
            "out", f"{target} is or holds what is to be converted", "name another place"
        )
    if not target.exists():
        return
    if not (target.is_file() if _is_file(target) else target.is_dir()):
        kind = "plain file" if _is_file(target) else "folder"
        raise PathError("out", f"{target} is there and no {kind}", "name another place")
    if target.is_dir() and (others := {file.name for file in target.iterdir()} - {*FILES}):
        raise ExistingFile("out", f"{target} has other files, such as {min(others)}")
    if not force:
        raise ExistingFile("out", f"{target} exists", "force replaces it")
