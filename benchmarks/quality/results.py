"""Where a quality measurement is kept: a JSON file of rows, written whole or not at all."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import marfast

FOLDER = Path(__file__).parent.parent / "results"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows that an earlier run left, or none."""
    return json.loads(file.read_text())["rows"] if file.exists() else []


def write_rows(file: Path, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Rows, what they were measured on, and any further facts, by a temporary name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), **facts, "rows": rows}
    temporary = file.with_suffix(".json.part")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(temporary, file)


def machine() -> dict[str, Any]:
    """The processor and the versions of the last run that wrote the file."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "marfast": marfast.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
