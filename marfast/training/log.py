"""What a run tells: a CSV that any program reads, and TensorBoard where it is installed."""

import csv
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

from marfast.files import replacing
from marfast.training.saved import LOG


class Row(NamedTuple):
    """Some steps together."""

    step: int
    epoch: float
    loss: float
    """Mean of those that are finite."""
    lr: float
    norm: float
    """Of the last step's gradients, before clipping."""
    images_per_second: float
    seconds: float
    """Of training since the run began, all sessions together."""
    skipped: int
    """Steps since the run began."""


class Log:
    """Of the run in a folder; what an earlier session told of steps after `step` is dropped."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / LOG
        self._keep(step)
        self.writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.writer = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def _keep(self, step: int) -> None:
        kept = [_line(Row._fields)]
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in list(csv.reader(file))[1:]:
                    if len(row) == len(Row._fields) and row[0].isdecimal() and int(row[0]) <= step:
                        kept.append(_line(row))
        with replacing(self.path, force=True) as new:
            new.write_text("".join(kept), encoding="utf-8", newline="")

    def add(self, row: Row) -> None:
        """In one write: a row is there whole or not at all."""
        shown = (*row[:2], *(f"{value:.6g}" for value in row[2:7]), row.skipped)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, _line(shown).encode())
        finally:
            os.close(file)
        if self.writer is not None:
            for name in ("loss", "lr", "norm", "images_per_second", "skipped"):
                self.writer.add_scalar(name, getattr(row, name), row.step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _line(row: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
