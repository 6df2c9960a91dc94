"""`marfast convert`: from a checkpoint to safetensors that say what they hold."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from marfast.checkpoints.checkpoint import ModelLike, PresetLike, find
from marfast.checkpoints.read import METADATA
from marfast.checkpoints.report import Report
from marfast.errors import ArgumentError, ExistingFile, PathError

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
    force: bool = False,
) -> Conversion:
    """Write a model's weights as safetensors, with what the model is.

    model, preset, weights: as `marfast.load` takes them.
    out: a folder (config.json and model.safetensors), or one .safetensors with the config in its
        metadata. It is there whole or not at all: written under another name, then renamed.
    dtype: "float32", "float16" or "bfloat16".
    force: replace a file, or a folder that holds nothing but these two files.

    Raises ArgumentError (some are a FileExistsError or FileNotFoundError, too), or as `load` does.
    """
    if dtype not in DTYPES:
        raise ArgumentError("dtype", repr(dtype), f"allowed are {', '.join(DTYPES)}")
    checkpoint = find(model, preset, weights)
    source, found = checkpoint.file, checkpoint.preset
    target = Path(os.path.realpath(out))
    _check_target(target, source.path, force)

    source.check(found.architecture.build())
    converted = source.copies(DTYPES[dtype])
    for key, value in converted.items():
        if not torch.isfinite(value).all():
            said = f"{source.path}: {key} has values that are too large for it"
            raise ArgumentError("dtype", dtype, said)

    config = json.dumps(found.to_dict(), indent=2)
    try:
        with _replacing(target) as new:
            if _is_file(target):
                save_file(converted, new, {"format": "pt", METADATA: config})
            else:
                new.mkdir()
                (new / "config.json").write_text(config + "\n", encoding="utf-8")
                save_file(converted, new / "model.safetensors", {"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise PathError("out", f"can't write {target} ({error})") from error
    size = sum(value.nbytes for value in converted.values())
    return Conversion(Report.of(checkpoint), str(out), dtype, size)


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
    if target.is_dir() and (others := {file.name for file in target.iterdir()} - {*FILES}):
        raise ExistingFile("out", f"{target} has other files, such as {min(others)}")
    if not force:
        raise ExistingFile("out", f"{target} exists", "force replaces it")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A name to write to, beside `target`, whose place it takes if nothing is raised."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".marfast-", dir=target.parent))
    new, old = work / "new", work / "old"
    try:
        yield new
        if target.is_dir():  # no folder with files in it can be renamed over
            target.rename(old)
        new.replace(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(work)
