"""A .pth as torch.save writes it: read by torch, and no code in it runs."""

import argparse
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

OLDEST_TORCH = "2.10"  # before it, a file could corrupt memory (CVE-2026-24747)
LARGEST_PICKLE = 4 << 20  # bytes; MAR-H's, with AdamW's state, has 280,000

_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
NAMES = {
    *(f"torch {kind}Storage" for kind in _STORAGES),
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
    "argparse Namespace",
}
"""All that a pickle may name: dense tensors, state_dicts, and a training run's options."""


def check_torch(instead: str) -> None:
    """Raise ValueError, which ends with what to do instead, for a torch too old to read pickles."""
    if torch.__version__ < OLDEST_TORCH:
        raise ValueError(f"needs torch {OLDEST_TORCH}, and this is {torch.__version__}; {instead}")


def read_pth(path: Path) -> Mapping[str, Any]:
    """What torch.save was given, its tensors mapped and not yet read.

    Raises ValueError for what it doesn't write, and torch's own errors.
    """
    check_torch("`marfast convert` with a newer one makes it a .safetensors, which any torch reads")
    _check_names(_pickle_in(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            contents: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:  # whose text advises to run what the file says
        raise ValueError("its pickle does what torch.save's do not") from None
    if not isinstance(contents, Mapping):
        raise ValueError(f"holds {type(contents).__name__}, not a dictionary")
    return contents


def _pickle_in(path: Path) -> bytes:
    """data.pkl, from an archive that takes no more memory to read than it is long."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "not a whole zip archive, which is what torch.save has written since torch 1.6"
        )
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
        entries = {entry.filename.lower().partition("/")[2]: entry for entry in listed}
        if len(entries) < len(listed):
            raise ValueError("has two entries of one name")
        for entry in listed:
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise ValueError(f"{entry.filename} is compressed; torch.save compresses nothing")
        if "constants.pkl" in entries:
            raise ValueError("is a TorchScript archive: a program, not weights")
        if "data.pkl" not in entries:
            raise ValueError("has no data.pkl, which torch.save writes")
        size = entries["data.pkl"].file_size
        if size > LARGEST_PICKLE:
            raise ValueError(f"its data.pkl has {size} bytes; allowed are up to {LARGEST_PICKLE}")
        return archive.read(entries["data.pkl"])


def _check_names(pickled: bytes) -> None:
    """Raise ValueError for a name that isn't in NAMES: torch's own list is longer."""
    for instruction, name, _ in pickletools.genops(pickled):
        if instruction.name == "GLOBAL" and name not in NAMES:
            raise ValueError(f"holds {str(name).replace(' ', '.')}, which is not read")
