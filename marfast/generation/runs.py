"""A folder's settings.json: how its images were made, a run after the other."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marfast._version import __version__
from marfast.errors import ArgumentError, MissingFile
from marfast.files import claimed, replacing
from marfast.generation.provenance import Provenance
from marfast.image_files import read_said

SETTINGS = "settings.json"
WAIT = 0.05
"""Seconds between looks at a file that another process writes."""

SAME = (
    *("command", "weights", "tokenizer", "labels", "per_label", "seed", "seed_per_image"),
    *("seeds", "settings", "dtype", "device", "scale"),
)
"""What decides an image, but for its last bit."""


def note_run(folder: Path, run: Provenance) -> None:
    """Add a run to those that a folder's settings.json tells of, unless it is there."""
    file = folder / SETTINGS
    while True:
        try:
            with claimed(file):
                runs = _read(file) if file.exists() else []
                said = json.loads(json.dumps(run.to_dict()))
                if said not in runs:
                    document = {"made_by": f"marfast {__version__}", "runs": [*runs, said]}
                    with replacing(file, force=True) as unfinished:
                        unfinished.write_text(json.dumps(document, indent=1) + "\n")
            return
        except BlockingIOError:
            time.sleep(WAIT)


def check_settings_file(folder: Path) -> None:
    """ArgumentError, naming `out`, where a folder has a settings.json that isn't such a file."""
    file = folder / SETTINGS
    if file.exists():
        try:
            _read(file)
        except ArgumentError as error:
            raise ArgumentError("out", error.given, "name another folder") from None


def read_provenance(path: str | Path) -> Provenance:
    """What an image, an .npz, a settings.json or the folder of one says of how it was made.
    ArgumentError, naming `file`, where that isn't one."""
    path = Path(path)
    if path.is_dir():
        path = path / SETTINGS
    if path.suffix != ".json":
        return Provenance.from_dict(read_said(path))
    if not path.is_file():
        raise MissingFile("file", f"{path}: no such file")
    runs = _read(path)
    if len(runs) != 1:
        raise ArgumentError("file", f"{path} is of {len(runs)} runs", "name one of their images")
    return Provenance.from_dict(runs[0])


def check_made_by(run: Provenance, files: Sequence[Path]) -> None:
    """ArgumentError, naming `out`, unless these images are of this run."""
    for file in files:
        try:
            theirs = Provenance.from_dict(read_said(file))
        except ArgumentError as error:
            raise ArgumentError("out", error.given, "what made it is not known") from None
        if differ := theirs.differences(run, SAME):
            raise ArgumentError("out", f"{file} is of another run: {'; '.join(differ)}")


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        runs = json.loads(file.read_text())["runs"]
        if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
            return runs
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ArgumentError("file", f"{file} tells of no runs of marfast")
