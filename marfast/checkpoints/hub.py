"""Models that Hugging Face's tools have downloaded: found in their cache, never fetched."""

import os
import re
from pathlib import Path

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def cache() -> Path:
    """Where huggingface_hub keeps what it downloads."""
    if told := os.environ.get("HF_HUB_CACHE"):
        return Path(told)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "huggingface") / "hub"


def is_repository(name: str) -> bool:
    """Whether it is of the form "owner/name"."""
    return _NAME.fullmatch(name) is not None


def snapshot_of(name: str) -> Path | None:
    """The snapshot of a repository "owner/name" that is in the cache; None where it isn't."""
    if not is_repository(name):
        return None
    return newest_snapshot(cache() / f"models--{name.replace('/', '--')}")


def newest_snapshot(repository: Path) -> Path | None:
    """Of a repository's folder in a cache: that of `main`, else the one that came last; None for
    any other folder."""
    snapshots = repository / "snapshots"
    main = repository / "refs" / "main"
    if main.is_file() and (found := snapshots / main.read_text().strip()).is_dir():
        return found
    there = [path for path in snapshots.glob("*") if path.is_dir()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)
