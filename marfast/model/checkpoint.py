"""Files of weights: read without running code, checked whole before a model sees them."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SAFETENSORS = (".safetensors",)
PICKLES = (".pth", ".pt", ".ckpt", ".bin")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class CheckpointError(ValueError):
    """A file that can't be loaded; the message names the file and the key."""


def _names(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + rest


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _read_pickle(path: Path) -> Mapping[str, Any]:
    with torch.serialization.safe_globals([argparse.Namespace]):  # the original stores its options
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"holds {type(loaded).__name__}, not a dictionary")
    return loaded


def _reason(error: Exception, suffix: str) -> str:
    """One line; torch's on a pickle that it refuses would go on to advise how to run its code."""
    text = str(error).strip()
    if refused := re.search(r"GLOBAL (\S+)", text):
        return f"holds {refused[1]}, which is not read"
    inner = re.search(r"WeightsUnpickler error:\s*(\S.*)", text)
    lines = [inner[1]] if inner else text.splitlines() or [type(error).__name__]
    return f"not readable as {suffix}: {lines[0].partition(' In PyTorch ')[0].strip()}"


def read_weights(
    path: Path, which: str | None = None, entries: Sequence[str] = ("model_ema", "model")
) -> dict[str, Tensor]:
    """The weights in a .safetensors file, or in a .pth as LTH14/mar saves it.

    which: the entry of a .pth to read; None takes the first of `entries` that is there, else the
    file itself. Pickles are read with weights_only: no code in them runs.
    Raises FileNotFoundError, or CheckpointError naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in SAFETENSORS + PICKLES:
        allowed = ", ".join(SAFETENSORS + PICKLES)
        raise CheckpointError(f"{path}: unknown kind of file; allowed are {allowed}")
    read = _read_safetensors if suffix in SAFETENSORS else _read_pickle
    try:
        contents = read(path)
    except Exception as error:  # readers raise many kinds on hostile bytes: each means "unreadable"
        raise CheckpointError(f"{path}: {_reason(error, suffix)}") from error

    wanted = [which] if which else entries
    nested = [name for name in wanted if isinstance(contents.get(name), Mapping)]
    if which and not nested:
        raise CheckpointError(
            f"{path}: has no entry {which!r}; it has {_names(map(str, contents))}"
        )
    weights = contents[nested[0]] if nested else contents
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {key!r} is {type(value).__name__}, not a tensor")
    return dict(weights)


def check_weights(weights: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Raise CheckpointError unless keys and shapes are the module's, and values finite floats."""
    expected = module.state_dict()
    if missing := expected.keys() - weights.keys():
        raise CheckpointError(f"{source}: misses {_names(missing)}")
    if extra := weights.keys() - expected.keys():
        raise CheckpointError(f"{source}: has {_names(extra)}, which this model has not")
    for key, tensor in weights.items():
        dense = tensor.layout == torch.strided and not tensor.is_nested
        if tensor.dtype not in FLOATS or tensor.device.type != "cpu" or not dense:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}"
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise CheckpointError(f"{source}: {key} is {kind}; allowed are dense {names}")
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {list(tensor.shape)}; "
                f"this model's is {list(expected[key].shape)}"
            )
        if not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"{source}: {key} has values that are not finite in float32")


def load_weights(weights: Mapping[str, Tensor], module: nn.Module, source: str) -> None:
    """Give a module built on the meta device these weights, as float32: all or none."""
    check_weights(weights, module, source)
    module.load_state_dict({k: v.float().contiguous() for k, v in weights.items()}, assign=True)
    module.requires_grad_(False)
