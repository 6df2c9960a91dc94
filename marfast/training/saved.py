"""A run on disk: what it is (run.json), and its last checkpoint, a folder that is replaced whole.

The folder `last` is a model that `marfast.load` takes, and beside it what going on needs: the raw
weights, other averages, AdamW's state, the generators' states of every part, and counts.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marfast._version import __version__
from marfast.checkpoints import CheckpointError, Preset
from marfast.checkpoints.presets import preset_of
from marfast.checkpoints.read import METADATA, read_weights
from marfast.errors import ArgumentError
from marfast.files import replacing
from marfast.training import streams
from marfast.training.data import Facts
from marfast.training.optimisation import Average, load_optimizer, optimizer_tensors
from marfast.training.settings import TrainSettings
from marfast.validation import differences

PLAN, LAST, LOG, SHEETS = "run.json", "last", "log.csv", "samples"
"""In a run's folder."""
MODEL, RAW, STATE, COUNTS = (
    "model.safetensors",
    "raw.safetensors",
    "state.safetensors",
    "state.json",
)
"""In a checkpoint's."""


@dataclass(frozen=True)
class Plan:
    """What a run is, from its first step to its last."""

    preset: Preset
    settings: TrainSettings
    data: Facts
    start: str = ""
    """Digest of the weights that it began with; empty for random ones."""

    def write(self, folder: Path) -> None:
        with replacing(folder / PLAN, force=True) as new:
            text = json.dumps({"marfast": __version__, **dataclasses.asdict(self)}, indent=2)
            new.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """CheckpointError names the file."""
        path = folder / PLAN
        stored = read_json(path)
        try:
            preset = preset_of(stored["preset"], str(path))
            settings = TrainSettings().replace(**stored["settings"])
            facts = {**stored["data"], "classes": tuple(stored["data"]["classes"])}
            return cls(preset, settings, Facts(**facts), str(stored["start"]))
        except (KeyError, TypeError, ArgumentError) as error:
            raise CheckpointError(f"{path}: not a run of this version ({error})") from None

    def check_same(self, given: "Plan", folder: Path) -> None:
        """Raise ArgumentError, naming `out`, unless a run given now is the one in the folder. It
        may have another number of epochs where no step's learning rate depends on it, and say
        nothing of the model that it began with once there is a checkpoint."""
        own, other = self._told(), given._told()
        if not given.start and (folder / LAST).exists():
            other["start"] = self.start
        if self.settings.schedule == "constant":
            other["epochs"] = self.settings.epochs
        differ = self.preset.architecture.differences(given.preset.architecture)
        differ += differences(own, other)
        if differ:
            more = f" and {len(differ) - 3} more" * (len(differ) > 3)
            raise ArgumentError("out", f"{folder} holds another run: {'; '.join(differ[:3])}{more}")

    def _told(self) -> dict[str, Any]:
        """All but the architecture, by name."""
        of_data = {f"data {name}": value for name, value in vars(self.data).items()}
        return {**vars(self.settings), **of_data, "start": self.start}


@dataclass
class Counts:
    """How far a run is."""

    step: int = 0
    """Batches that it has seen."""
    updates: int = 0
    """Of the weights: batches but those whose loss wasn't finite."""
    bad: int = 0
    """Steps in a row up to this one whose loss was not finite."""
    losses: int = 0
    """Finite ones since the last row of the log, and their sum."""
    loss: float = 0.0
    seconds: float = 0.0
    """Of training, all sessions together."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Files that were left out, and why."""

    @property
    def skipped(self) -> int:
        return self.step - self.updates


def write_checkpoint(
    folder: Path,
    preset: Preset,
    counts: Counts,
    module: nn.Module,
    averages: Sequence[Average],
    optimizer: torch.optim.AdamW,
    states: Mapping[int, streams.State],
) -> None:
    """Replace the checkpoint of a run's folder. OSError where that can't be written: then what was
    there is there."""
    config = json.dumps(preset.to_dict(), indent=2)
    raw = {name: parameter.detach() for name, parameter in module.named_parameters()}
    weights = _weight_files(averages, raw)
    state = optimizer_tensors(optimizer, module) | streams.to_tensors(states)
    try:
        with replacing(folder / LAST, force=True) as new:
            new.mkdir()
            (new / "config.json").write_text(config + "\n", encoding="utf-8")
            (new / COUNTS).write_text(json.dumps(dataclasses.asdict(counts)) + "\n")
            for name, tensors in weights.items():
                save_file(_plain(tensors), new / name, {"format": "pt", METADATA: config})
            save_file(_plain(state), new / STATE)
    except SafetensorError as error:
        raise OSError(f"can't write {folder / LAST} ({error})") from None


def read_checkpoint(
    folder: Path,
    module: nn.Module,
    averages: Sequence[Average],
    optimizer: torch.optim.AdamW,
) -> tuple[Counts, dict[int, streams.State]]:
    """Fill in the run of a folder's checkpoint: its counts, and the generators' states.

    CheckpointError names the file and what is wrong with it.
    """
    last = folder / LAST
    stored = read_json(last / COUNTS)
    raw = {name: parameter.detach() for name, parameter in module.named_parameters()}
    for name, tensors in _weight_files(averages, raw).items():
        file = read_weights(last / name)
        file.check(module)
        for key, tensor in tensors.items():
            tensor.copy_(file.weights[key])
    try:
        state = load_file(last / STATE)
        load_optimizer(optimizer, module, state)
        return Counts(**stored), streams.from_tensors(state)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{last / STATE}: not the state of this run ({error})") from None


def _weight_files(
    averages: Sequence[Average], raw: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """The weights in each file: the first average's, or else the raw ones, is what `marfast.load`
    takes."""
    names = [MODEL, *(f"ema-{average.rate!r}.safetensors" for average in averages[1:])]
    files = {name: own.weights for name, own in zip(names, averages, strict=False)}
    return files | {RAW if averages else MODEL: raw}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_json(path: Path) -> dict[str, Any]:
    """An object. CheckpointError names the file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable ({error})") from None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: not an object")
    return stored
