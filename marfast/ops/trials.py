"""Trials of backends, kept on disk: one file for each machine, as its stopwatch describes it."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marfast.files import claimed, replacing, sweep

FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """What came of trying a candidate."""

    error: float | None = None
    """How far it was from the reference, of the reference's largest value."""
    seconds: float | None = None
    """Of one call."""
    at_least: bool = False
    """Whether it was given up as too slow after so many seconds."""
    wrong: str = ""
    """Why it is not used."""


Trials = dict[str, dict[str, Trial]]
"""By class of calls, then by candidate."""


def file_for(folder: Path, machine: Mapping[str, str]) -> Path:
    """Where a machine's trials are."""
    name = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"trials-{name}.json"


def read(file: Path, machine: Mapping[str, str]) -> Trials:
    """What the file has; nothing where it can't be read, is of another machine, or is no such
    file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or found["machine"] != dict(machine):
            return {}
        return {
            call: {label: _trial(told) for label, told in tried.items()}
            for call, tried in found["trials"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def write(file: Path, machine: Mapping[str, str], trials: Trials) -> None:
    """Add these to the file's. Where it can't be written, or somebody else is writing, nothing is
    kept: they are measured anew."""
    with suppress(OSError):
        sweep(file.parent)  # what processes left that died here
    with suppress(OSError), claimed(file):
        merged = read(file, machine)
        for call, tried in trials.items():
            merged[call] = {**merged.get(call, {}), **tried}
        told = {
            call: {label: asdict(trial) for label, trial in tried.items()}
            for call, tried in merged.items()
        }
        with replacing(file, force=True) as new:
            content = {"format": FORMAT, "machine": dict(machine), "trials": told}
            new.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
            os.chmod(new, 0o600)


def _trial(told: Mapping[str, Any]) -> Trial:
    trial = Trial(**told)
    numbers = [n for n in (trial.error, trial.seconds) if n is not None]
    if not all(isinstance(n, int | float) and math.isfinite(n) and n >= 0 for n in numbers):
        raise ValueError("no trial")
    if type(trial.wrong) is not str or type(trial.at_least) is not bool:
        raise TypeError("no trial")
    if trial.seconds is None and not trial.wrong:
        raise ValueError("no trial")
    return trial
