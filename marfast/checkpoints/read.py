"""Files of weights: read without running code, checked whole before a model sees them."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marfast.checkpoints.options import preset_from_options
from marfast.checkpoints.presets import Preset, parse_config
from marfast.checkpoints.pth import read_pth
from marfast.checkpoints.rename import to_original_names
from marfast.errors import ArgumentError, CheckpointError, is_out_of_memory, is_size_overflow, shown

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
ENTRIES = ("model_ema", "model")
"""Of a .pth as LTH14/mar saves it; the first that is there is the default."""
METADATA = "marfast.config"
"""In a .safetensors: a config.json, where the file stands alone."""

Contents = tuple[Mapping[str, Any], Preset | None]


@dataclass(frozen=True)
class WeightFile:
    """Weights in a file, mapped and not yet read: what is loaded, and what else is there.

    They are views of the file: copy what is to outlive it.
    """

    path: Path
    weights: Mapping[str, Tensor]
    """By the original's names."""
    layout: str
    """Of the names in the file; see `rename`."""
    entry: str | None
    """Of a .pth: the entry that holds the weights; None if they are the file."""
    left_out: tuple[str, ...]
    """The file's other entries."""
    preset: Preset | None
    """What the file itself says that it holds."""

    def check(self, module: nn.Module) -> None:
        """Raise CheckpointError unless keys and shapes are the module's, and values finite
        floats."""
        expected = module.state_dict()
        if missing := expected.keys() - self.weights.keys():
            raise CheckpointError(f"{self.path}: misses {_names(missing)}")
        if extra := self.weights.keys() - expected.keys():
            raise CheckpointError(f"{self.path}: has {_names(extra)}, which this model has not")
        for key, tensor in self.weights.items():
            if tensor.dtype not in FLOATS:
                allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
                raise CheckpointError(
                    f"{self.path}: {key} is {tensor.dtype}; allowed are {allowed}"
                )
            if tensor.shape != expected[key].shape:
                raise CheckpointError(
                    f"{self.path}: {key} has shape {list(tensor.shape)}; "
                    f"this model's is {list(expected[key].shape)}"
                )
            if not torch.isfinite(tensor.detach().float()).all():
                raise CheckpointError(
                    f"{self.path}: {key} has values that are not finite in float32"
                )

    def fill(self, module: nn.Module) -> None:
        """Give a module built on the meta device copies of the weights, as float32: all or none."""
        self.check(module)
        module.load_state_dict(self.copies(torch.float32), assign=True)
        module.requires_grad_(False)

    def copies(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights, contiguous, in memory of their own, whatever happens to the file."""
        own: dict[str, Any] = {"copy": True, "memory_format": torch.contiguous_format}
        return {key: value.detach().to(dtype, **own) for key, value in self.weights.items()}


def read_weights(
    path: Path, which: str | None = None, entries: Sequence[str] = ENTRIES
) -> WeightFile:
    """What is in a .safetensors file, or in a .pth as LTH14/mar saves it; no code in it runs.

    which: the entry of a .pth to read, one of `entries`; None takes the first that is there, else
    the file itself.

    Raises ArgumentError for another `which`, FileNotFoundError, or CheckpointError naming the file
    and what is wrong with it.
    """
    if which not in (None, *entries):
        raise ArgumentError(
            "weights", repr(which), f"allowed are {' and '.join(map(repr, entries))}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise CheckpointError(f"{path}: unknown kind of file; allowed are {', '.join(_READERS)}")
    try:
        contents, preset = _READERS[suffix](path)
    except Exception as error:  # readers raise many kinds on hostile bytes: each means "unreadable"
        if is_out_of_memory(error) and not is_size_overflow(error):  # a size is the file's
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = first if first.isprintable() else ascii(first)[1:-1]
        raise CheckpointError(f"{path}: not readable as {suffix}: {said:.300}") from error

    if which is not None and which not in contents:
        raise CheckpointError(f"{path}: has no entry {which!r}; it has {_names(contents)}")
    entry = which or next((name for name in entries if name in contents), None)
    weights = contents if entry is None else contents[entry]
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"{path}: {entry} is {type(weights).__name__}, not a state_dict")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {shown(key)} is {type(value).__name__}, not a tensor")
    held, most = sum(value.nbytes for value in weights.values()), path.stat().st_size
    if held > most:
        raise CheckpointError(f"{path}: {held} bytes of weights in a file of {most}")
    left_out = () if entry is None else tuple(shown(name) for name in contents if name != entry)
    layout, weights = to_original_names(weights)
    return WeightFile(path, weights, layout, entry, left_out, preset)


def _read_safetensors(path: Path) -> Contents:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        config = (file.metadata() or {}).get(METADATA)
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return weights, None if config is None else parse_config(config, METADATA)


def _read_pth(path: Path) -> Contents:
    contents = read_pth(path)
    options = contents.get("args")
    said = isinstance(options, argparse.Namespace)
    return contents, preset_from_options(vars(options), "args") if said else None


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin"), _read_pth),
}


def _names(keys: Iterable[Any]) -> str:
    listed = sorted(map(shown, keys))
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest
