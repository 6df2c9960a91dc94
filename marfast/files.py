"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, beside `path`, whose place it takes if nothing is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".marfast-{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
