"""What `--out` names, checked before any work: nothing is computed that can't be stored."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import features

from marfast.cli.errors import bad, reported_as
from marfast.cli.images import FORMATS


@dataclass(frozen=True)
class Target:
    """One file for a grid, or a folder for single files."""

    path: Path
    is_folder: bool


def check_target(out: str) -> Target:
    """A folder if it ends in a separator, is one, or has no suffix; else a file."""
    if not out:
        raise bad("--out", "''; allowed are the path of an image file or of a folder")
    with reported_as("--out"):
        path = Path(os.path.realpath(os.path.expanduser(out)))  # these two never raise
        is_folder = out.endswith(("/", os.sep)) or path.is_dir() or not path.suffix
        if is_folder and path.exists() and not path.is_dir():
            raise bad("--out", f"{out} is a file, not a folder")
        if not is_folder:
            _check_suffix(out, path.suffix.lower())
        _check_writable(out, path if is_folder else path.parent)
    return Target(path, is_folder)


def refuse_to_replace(paths: Iterable[Path]) -> None:
    """The error for the first file that exists already."""
    for path in paths:
        if path.exists():
            raise bad("--out", f"{path} exists; --force replaces it")


def _check_suffix(out: str, suffix: str) -> None:
    if suffix not in FORMATS or (suffix == ".webp" and not features.check("webp")):
        allowed = ", ".join(FORMATS)
        raise bad("--out", f"{out}; allowed are {allowed}, or a folder (end it with /)")


def _check_writable(out: str, folder: Path) -> None:
    """Really tried, in the nearest folder that exists: permissions alone don't tell."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise bad("--out", f"{out}: {existing} is not a folder")
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise bad("--out", f"{out}: can't write to {existing} ({error.strerror})") from None
