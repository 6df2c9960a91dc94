"""A run to be killed, in a process that is forked from one without threads."""

from multiprocessing.connection import Connection
from pathlib import Path

import torch

from marfast.training.training import Progress
from tests.training.runs import SOON, go


def run(folder: Path, settings: dict[str, object], told: Connection) -> None:
    """Goes on with it, a checkpoint a step; `told` hears of the first one."""
    torch.set_num_threads(1)

    def report(progress: Progress) -> None:
        told.send(progress.step)

    go(folder, session=SOON, resume=True, report=report, **settings)
