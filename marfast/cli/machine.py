"""What there is on this machine, as `marfast info` tells it."""

import os
import platform
from dataclasses import asdict
from typing import Any

import torch

from marfast import hardware
from marfast._version import __version__
from marfast.checkpoints import embedded_models
from marfast.checkpoints.presets import read_config
from marfast.ops.op import backends
from marfast.ops.runtime import cpu

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Shown where they are set, besides those that begin with MARFAST_."""


def gather() -> dict[str, Any]:
    """Everything that `marfast info` prints, as JSON can say it."""
    gpus = hardware.gpus()
    return {
        "versions": {
            "marfast": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "devices": {
            "cpu": hardware.processor(),
            "logical_cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
        },
        "native": _native(),
        "backends": [
            {"device": device, **row._asdict()}
            for device in ("cpu", "cuda")[: 2 if gpus else 1]
            for row in backends(device)
        ],
        "models": {
            name: asdict(read_config(folder / "config.json").settings)
            for name, folder in embedded_models().items()
        },
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("MARFAST_") or name in VARIABLES
        },
    }


def _native() -> dict[str, Any]:
    """The extension: its compiler, the instruction sets usable on this CPU and the one in use."""
    available, reason = cpu.is_built()
    if not available:
        return {"available": False, "reason": reason}
    extension = cpu.extension()
    return {
        "available": True,
        "file": str(extension.__file__),
        "compiler": extension.compiler,
        "instruction_set": extension.isa(),
        "usable": extension.isas(),
    }
