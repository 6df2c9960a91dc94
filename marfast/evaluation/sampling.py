"""The images of a run, made by its model or read from its folder; and a folder filled with them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from marfast.errors import ArgumentError
from marfast.evaluation.run import Run, open_run, read_run
from marfast.evaluation.shards import FORMATS, JOINED, check_shard, join, read_shard, shard_files
from marfast.evaluation.work import Place, complete
from marfast.files import sweep
from marfast.generation import Pipeline
from marfast.pixels import Pixels, to_pixels

Progress = Callable[[int, int], None]
"""Called with (done, of) images, of all processes."""


class Source(Protocol):
    """Where the images of a run come from."""

    @property
    def run(self) -> Run:
        """All that is to be known of them."""

    def pixels(self, shard: int, progress: Callable[[float], None] | None = None) -> Pixels:
        """The images [n, H, W, C] of a shard; progress is told the share that is done."""

    def mark(self, shard: int) -> str:
        """Part of the name of what is kept about a shard: another one once it is made anew."""


@dataclass(frozen=True)
class Made:
    """By the model, when they are asked for."""

    pipeline: Pipeline
    run: Run

    def pixels(self, shard: int, progress: Callable[[float], None] | None = None) -> Pixels:
        run, ids, of = self.run, self.run.shards[shard], self.pipeline
        # the run's settings as a whole: as arguments, None would mean the model's own
        pipeline = Pipeline(of.model, run.settings, of.classes, of.report, of.tokenizer)
        parts = pipeline.generate_parts(
            run.labels(ids),
            seed=run.seeds(ids),
            part=run.part,
            progress=progress and (lambda done, of: progress(done / of)),
        )
        return np.concatenate([to_pixels(images) for images in parts])

    def mark(self, shard: int) -> str:
        return ""


@dataclass(frozen=True)
class Stored:
    """In the run's folder. ArgumentError, naming `folder`, where they aren't all."""

    folder: Path
    run: Run

    @classmethod
    def of(cls, folder: str | Path) -> "Stored":
        run = read_run(Path(folder))
        if run.kind == "none":
            raise ArgumentError("folder", f"{folder} is a run without images; name its model, too")
        files = shard_files(Path(folder), run)
        missing = [file.name for file in files if not file.exists()]
        if missing:
            said = (
                f"{folder}: {len(missing)} of {len(files)} shards are missing, {missing[0]} first"
            )
            raise ArgumentError("folder", said, "the command that made the others makes them")
        return cls(Path(folder), run)

    def pixels(self, shard: int, progress: Callable[[float], None] | None = None) -> Pixels:
        file = shard_files(self.folder, self.run)[shard]
        return read_shard(file, self.run, self.run.shards[shard])

    def mark(self, shard: int) -> str:
        found = shard_files(self.folder, self.run)[shard].stat()
        return f"-{found.st_size:x}-{found.st_mtime_ns:x}"


def sample(
    pipeline: Pipeline,
    run: Run,
    folder: str | Path,
    *,
    place: Place | None = None,
    progress: Progress | None = None,
) -> int:
    """Fill a folder with the images of a run: shards that are missing are made, each of them by one
    of the processes that do this at the same time; .npz are joined into one at the end. How many
    shards this one has made is returned.

    Raises ArgumentError, naming `out`, for the folder of another run; ValueError for a shard that
    can't be read; OSError where one can't be written: what is there stays, and the same call goes
    on.
    """
    folder, place = Path(folder), place or Place.here()
    if run.kind == "none":
        raise ArgumentError("kind", run.kind, f"allowed are {', '.join(FORMATS)}")
    open_run(folder, run)
    sweep(folder)
    files, source = shard_files(folder, run), Made(pipeline, run)
    for i in range(place.rank % place.ranks, len(files), place.ranks):
        if files[i].exists():
            check_shard(files[i], run, run.shards[i])

    count = Counted(run, progress)

    def make(shard: int, path: Path) -> None:
        ids = run.shards[shard]
        pixels = source.pixels(shard, count.within(shard))
        FORMATS[run.kind].write(path, ids, run.labels(ids), pixels)

    made = complete(files, make, place, count.missing)
    if run.kind == "npz":
        joined = folder / JOINED
        with suppress(FileNotFoundError):
            if max(file.stat().st_mtime_ns for file in files) > joined.stat().st_mtime_ns:
                joined.unlink()
        complete([joined], lambda _, path: join(folder, run, path), place)
    return made


class Counted:
    """Shards that are done, told as images."""

    def __init__(self, run: Run, progress: Progress | None):
        self.run, self.progress = run, progress
        self.done = 0

    def missing(self, shards: list[int]) -> None:
        ids = self.run.shards
        self.done = self.run.count - sum(len(ids[shard]) for shard in shards)
        self._tell(0)

    def within(self, shard: int) -> Callable[[float], None]:
        """For the share of one shard that is being made here."""
        size = len(self.run.shards[shard])
        return lambda share: self._tell(int(share * size))

    def _tell(self, more: int) -> None:
        if self.progress:
            self.progress(min(self.done + more, self.run.count), self.run.count)
