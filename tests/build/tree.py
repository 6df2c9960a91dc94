"""Copies of the repository to build in."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD_INPUTS = (
    "CMakeLists.txt",
    "LICENSE",
    "NOTICE",
    "README.md",
    "csrc",
    "marfast",
    "pyproject.toml",
    "setup.py",
)


def sources(*under: str) -> list[Path]:
    """The repository's files, as git knows them: no build's, no cache's."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *under],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = (Path(name) for name in listed.stdout.split("\0") if name)
    return [name for name in names if (ROOT / name).is_file()]


def copy_repository(target: Path, *under: str) -> Path:
    """The repository, or what is under these names, copied to `target`."""
    for name in sources(*under):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    return target
