"""What a checkpoint turned out to hold."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import PresetLike, find_model
from .presets import Preset
from .read import Checkpoint, check_weights, read_checkpoint


@dataclass(frozen=True)
class Report:
    """What was read from a checkpoint, and what was not."""

    file: str
    entry: str | None
    """Of a .pth: "model_ema", "model", or None if the weights are the file."""
    preset: str | None
    """The name of the preset of this architecture, where it has one."""
    architecture: Mapping[str, int | float]
    parameters: int
    dtypes: tuple[str, ...]
    bytes: int
    """Of the weights, as the file has them."""
    left_out: tuple[str, ...]
    """The file's other entries."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, preset: Preset) -> "Report":
        tensors = checkpoint.weights.values()
        return cls(
            file=str(checkpoint.path),
            entry=checkpoint.entry,
            preset=preset.name,
            architecture=dataclasses.asdict(preset.architecture),
            parameters=sum(tensor.numel() for tensor in tensors),
            dtypes=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors})),
            bytes=sum(tensor.nbytes for tensor in tensors),
            left_out=checkpoint.left_out,
        )


def inspect(model: str | Path, preset: PresetLike = None) -> Report:
    """What `marfast.load` would load, every weight checked; errors are the same."""
    path, found = find_model(model, preset)
    checkpoint = read_checkpoint(path)
    check_weights(checkpoint.weights, found.architecture.build(), str(path))
    return Report.of(checkpoint, found)
