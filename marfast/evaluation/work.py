"""Work that several processes share, on one machine or many, by the file system alone.

A piece of work is a file. Each process makes those that are missing, first of its own share, then
of the others': one that dies holds nobody up, and whoever comes later finds what is done. While it
makes a file it has it claimed (`files.claimed`); where a file system has no locks, two may make the
same file, and the second is thrown away.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from marfast.errors import ArgumentError
from marfast.files import claimed, replacing, sweep

WAIT = (0.05, 2.0)
"""Seconds between looks at what others are making, at first and at last."""


@dataclass(frozen=True)
class Place:
    """This process among those that run the same: torchrun and Slurm tell by the environment."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> "Place":
        for names in _LAUNCHERS:
            if names[0] in environment and names[1] in environment:
                given = [environment.get(name) or "0" for name in names]
                if not all(value.isdecimal() for value in given):
                    told = ", ".join(map("=".join, zip(names, given, strict=True)))
                    raise ArgumentError("rank", told, "allowed are whole numbers")
                rank, ranks, local_rank = map(int, given)
                return cls(rank, max(1, ranks), local_rank)
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this is the one that tells people how it goes."""
        return self.rank == 0


_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    # srun's own count: a batch script has SLURM_NTASKS, too, and is one process
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


def complete(
    files: Sequence[Path],
    make: Callable[[int, Path], None],
    place: Place = Place(),
    report: Callable[[list[int]], None] | None = None,
) -> int:
    """Make those of the files that aren't there, and wait for those that others are making.

    make(i, path) writes file i to `path`, from where it is moved into its place. report is told,
    now and then, which are missing. How many this process has made is returned.

    Raises FileExistsError for a link to nothing where a file belongs.
    """
    made = 0
    first = len(files) * (place.rank % place.ranks) // place.ranks
    order = [*range(first, len(files)), *range(first)]
    wait = WAIT[0]
    while missing := [i for i in order if not files[i].exists()]:
        if report:
            report(missing)
        idle = True
        for i in missing:
            with ExitStack() as claim:
                try:
                    claim.enter_context(claimed(files[i]))
                except BlockingIOError:
                    continue
                idle = False
                if files[i].exists():
                    continue
                if files[i].is_symlink():
                    raise FileExistsError(
                        errno.EEXIST, "A link to nothing; remove it", str(files[i])
                    )
                with suppress(FileExistsError):
                    with replacing(files[i]) as unfinished:
                        make(i, unfinished)
                    made += 1
            if report:
                report([i for i in order if not files[i].exists()])
        wait = min(2 * wait, WAIT[1]) if idle else WAIT[0]
        if idle:
            time.sleep(wait)
    if report:
        report([])
    for folder in {file.parent for file in files}:
        sweep(folder)
    return made
