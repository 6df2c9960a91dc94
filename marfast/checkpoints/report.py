"""What a checkpoint turned out to hold."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from marfast.checkpoints.checkpoint import Checkpoint, ModelLike, PresetLike, find


@dataclass(frozen=True)
class Report:
    """What was read from a checkpoint, and what was not."""

    name: str
    """As the model was named, but for the folders of an absolute path."""
    file: str
    entry: str | None
    """Of a .pth: "model_ema", "model", or None if the weights are the file."""
    layout: str
    """Of the weights' names: "original", or the name of another in `rename.LAYOUTS`."""
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
    def of(cls, checkpoint: Checkpoint) -> "Report":
        file, preset = checkpoint.file, checkpoint.preset
        tensors = file.weights.values()
        return cls(
            name=checkpoint.name,
            file=str(file.path),
            entry=file.entry,
            layout=file.layout,
            preset=preset.name,
            architecture=dataclasses.asdict(preset.architecture),
            parameters=sum(tensor.numel() for tensor in tensors),
            dtypes=tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors})),
            bytes=sum(tensor.nbytes for tensor in tensors),
            left_out=file.left_out,
        )


def inspect(model: ModelLike, preset: PresetLike = None) -> Report:
    """What `marfast.load` would load, every weight checked; errors are the same."""
    checkpoint = find(model, preset)
    checkpoint.file.check(checkpoint.preset.architecture.build())
    return Report.of(checkpoint)
