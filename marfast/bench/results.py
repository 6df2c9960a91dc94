"""Where measurements are kept: a JSON file of rows, written whole or not at all."""

import functools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import marfast
from marfast import hardware
from marfast.files import replacing

Row = dict[str, Any]


def read_document(file: Path) -> dict[str, Any]:
    """What an earlier run left: rows, machine, further facts; empty where there is no file."""
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return document


def read_rows(file: Path) -> list[Row]:
    """The rows that an earlier run left, or none."""
    rows: list[Row] = read_document(file).get("rows", [])
    return rows


def write_rows(file: Path, rows: list[Row], *, force: bool = False, **facts: Any) -> None:
    """Rows, what they were measured on, and any further facts; what is there only if forced."""
    document = {"machine": machine(), **facts, "rows": rows}
    with replacing(file, force=force) as unfinished:
        unfinished.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """The processor and the versions of the last run that wrote the file."""
    found = {
        "processor": hardware.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "marfast": marfast.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    gpus = hardware.gpus()
    return found | ({"gpus": gpus} if gpus else {})


@functools.cache
def commit() -> str:
    """The commit whose code is measured, marked where what is measured or measures differs from it;
    empty for a package that is not in a repository."""
    measured = ["marfast", "csrc", "benchmarks", ":!benchmarks/results"]
    head = _git("rev-parse", "HEAD")
    return head + ("-dirty" if head and _git("status", "--porcelain", "--", *measured) else "")


def _git(*arguments: str) -> str:
    root = Path(marfast.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip()
