"""Files of weights: read without running code, checked whole before a model sees them."""

import argparse
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .archive import read_archive
from .options import preset_from_options
from .pickled import check_pickle
from .presets import Preset, parse_config

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
ENTRIES = ("model_ema", "model")
"""Of a .pth as LTH14/mar saves it; the first that is there is the default."""
METADATA = "marfast.config"
"""In a .safetensors: a config.json, where the file stands alone."""

Contents = tuple[Mapping[str, Any], Preset | None]


class CheckpointError(ValueError):
    """A file that can't be loaded; the message names the file and the key."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights in a file, mapped and not yet read: what is loaded, and what else is there."""

    path: Path
    weights: Mapping[str, Tensor]
    entry: str | None
    """Of a .pth: the entry that holds the weights; None if they are the file."""
    preset: Preset | None
    """What the file itself says that it holds."""
    left_out: tuple[str, ...]
    """The file's other entries."""


def shown(name: object) -> str:
    """A name from a file, for one line of a message."""
    text = str(name) if isinstance(name, str | int) else type(name).__name__
    return text if text.isprintable() and len(text) <= 80 else reprlib.repr(text)


def _names(keys: Iterable[Any]) -> str:
    listed = sorted(map(shown, keys))
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest


def _read_safetensors(path: Path) -> Contents:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        config = (file.metadata() or {}).get(METADATA)
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return weights, None if config is None else parse_config(config, METADATA)


def _read_pth(path: Path) -> Contents:
    archive = read_archive(path)
    check_pickle(archive.pickle, archive.storages)
    with torch.serialization.safe_globals([argparse.Namespace]):  # the original stores its options
        contents: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(contents, Mapping):
        raise ValueError(f"holds {type(contents).__name__}, not a dictionary")
    options = contents.get("args")
    said = isinstance(options, argparse.Namespace)
    return contents, preset_from_options(vars(options), "args") if said else None


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin"), _read_pth),
}


def read_checkpoint(
    path: Path, which: str | None = None, entries: Sequence[str] = ENTRIES
) -> Checkpoint:
    """What is in a .safetensors file, or in a .pth as LTH14/mar saves it.

    which: the entry of a .pth to read, one of `entries`; None takes the first that is there, else
    the file itself. No code in a file runs: see `archive` and `pickled`. The weights are views
    of the file, so copy what is to outlive it.
    Raises ValueError for another `which`, FileNotFoundError, or CheckpointError naming the file and
    what is wrong with it.
    """
    if which not in (None, *entries):
        raise ValueError(f"weights: {which!r}; allowed are {' and '.join(map(repr, entries))}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise CheckpointError(f"{path}: unknown kind of file; allowed are {', '.join(_READERS)}")
    try:
        contents, preset = _READERS[suffix](path)
    except Exception as error:  # readers raise many kinds on hostile bytes: each means "unreadable"
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = first if first.isprintable() else ascii(first)[1:-1]
        raise CheckpointError(f"{path}: not readable as {suffix}: {said:.300}") from error

    there = [name for name in entries if isinstance(contents.get(name), Mapping)]
    if which is not None and which not in there:
        raise CheckpointError(f"{path}: has no entry {which!r}; it has {_names(contents)}")
    entry = which or next(iter(there), None)
    weights = contents if entry is None else contents[entry]
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {shown(key)} is {type(value).__name__}, not a tensor")
    held, most = sum(value.nbytes for value in weights.values()), path.stat().st_size
    if held > most:
        raise CheckpointError(f"{path}: {held} bytes of weights in a file of {most}")
    left_out = () if entry is None else tuple(shown(name) for name in contents if name != entry)
    return Checkpoint(path, weights, entry, preset, left_out)


def check_weights(weights: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Raise CheckpointError unless keys and shapes are the module's, and values finite floats."""
    expected = module.state_dict()
    if missing := expected.keys() - weights.keys():
        raise CheckpointError(f"{source}: misses {_names(missing)}")
    if extra := weights.keys() - expected.keys():
        raise CheckpointError(f"{source}: has {_names(extra)}, which this model has not")
    for key, tensor in weights.items():
        if tensor.dtype not in FLOATS:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise CheckpointError(f"{source}: {key} is {tensor.dtype}; allowed are {names}")
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {list(tensor.shape)}; "
                f"this model's is {list(expected[key].shape)}"
            )
        if not torch.isfinite(tensor.detach().float()).all():
            raise CheckpointError(f"{source}: {key} has values that are not finite in float32")


def load_weights(weights: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Give a module built on the meta device copies of these weights, as float32: all or none."""
    check_weights(weights, module, source)
    copies = {key: own_copy(tensor, torch.float32) for key, tensor in weights.items()}
    module.load_state_dict(copies, assign=True)
    module.requires_grad_(False)


def own_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy in memory of its own, whatever happens to the file."""
    return tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
