"""Copies of the repository to build in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD_INPUTS = (
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "csrc",
    "marfast",
    "pyproject.toml",
    "setup.py",
)


def copy_repository(target: Path, *more: str) -> Path:
    """What a build reads (and `more`), copied to `target`, without what was built."""
    for name in (*BUILD_INPUTS, *more):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, copy)
    return target
