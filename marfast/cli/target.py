"""What is to be written, checked before any work: nothing is computed that can't be stored."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from marfast.cli.errors import bad, reported_as
from marfast.image_files import ARRAYS, check_suffix


@dataclass(frozen=True)
class Target:
    """One file, of a grid or of arrays, or a folder for single files."""

    path: Path
    is_folder: bool

    @property
    def is_arrays(self) -> bool:
        return not self.is_folder and self.path.suffix.lower() == ARRAYS

    @property
    def kind(self) -> str:
        """For people."""
        return "folder" if self.is_folder else "file"

    @property
    def folder(self) -> Path:
        """Where files will be."""
        return self.path if self.is_folder else self.path.parent


def check_target(out: str) -> Target:
    """A folder if it ends in a separator, is one, or has no suffix; else a file."""
    if not out:
        raise bad("--out", "''; allowed are the path of an image file or of a folder")
    with reported_as("--out"):
        path = _resolved(out)
        is_folder = _ends_as_folder(out) or path.is_dir() or not path.suffix
        if is_folder and path.exists() and not path.is_dir():
            raise bad("--out", f"{out} is a file, not a folder")
        if not is_folder:
            check_suffix(out, "out")
        _check_writable("--out", out, path if is_folder else path.parent, path)
    return Target(path, is_folder)


def check_file(option: str, given: str, force: bool) -> Path:
    """A file to write, not there yet unless forced."""
    if not given:
        raise bad(option, "''; allowed is the path of a file")
    with reported_as(option):
        path = _resolved(given)
        if _ends_as_folder(given) or path.is_dir():
            raise bad(option, f"{given} is a folder, not a file")
        _check_writable(option, given, path.parent, path)
    refuse_to_replace([path], force, option)
    return path


def check_folder(option: str, given: str, names: Iterable[str], force: bool) -> Path:
    """A folder to write files of these names to, which aren't there yet unless forced."""
    if not given:
        raise bad(option, "''; allowed is the path of a folder")
    with reported_as(option):
        path = _resolved(given)
        _check_writable(option, given, path, path)
    refuse_to_replace([path / name for name in names], force, option)
    return path


def refuse_to_replace(paths: Iterable[Path], force: bool, option: str = "--out") -> None:
    """The error for the first of these that is there, or is something else than a file."""
    for path in paths:
        if os.path.lexists(path):
            if not path.is_symlink() and not path.is_file():
                raise bad(option, f"{path} is there and no plain file")
            if not force:
                raise bad(option, f"{path} exists; --force replaces it")


def _resolved(given: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(given)))


def _ends_as_folder(given: str) -> bool:
    return given.endswith(("/", os.sep))


def _check_writable(option: str, given: str, folder: Path, path: Path) -> None:
    """Really tried, in the nearest folder that exists: permissions alone don't tell."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise bad(option, f"{given}: {existing} is not a folder")
    for name in path.relative_to(existing).parts:
        with suppress(FileNotFoundError):
            (existing / name).lstat()  # OSError for a name that can't be
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise bad(option, f"{given}: can't write to {existing} ({error.strerror})") from None
