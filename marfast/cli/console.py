"""What goes to the terminal: lines, tables, pairs and JSON on stdout, a progress bar on stderr.

Everything that is printed passes through `echo` or `print_json`: names come from files.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import TextIO

Report = Callable[[str, int, int], None]


def printable(text: object) -> str:
    """One line that does nothing to a terminal: what isn't printable is escaped as in Python."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


def echo(line: object = "", *, err: bool = False) -> None:
    """Print a line. OSError if stdout can't be written; of stderr nobody can be told."""
    stream = sys.stderr if err else sys.stdout
    try:
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        print(printable(line), file=stream, flush=True)
    except OSError as error:
        if not err:
            raise OSError(error.errno, error.strerror, "stdout") from None
        silence(stream)


def silence(stream: TextIO | None) -> None:
    """What the stream did not take, and what comes later, goes nowhere: Python would try again at
    its end, and end with a status of its own."""
    if stream is not None:
        with suppress(OSError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(data: object, indent: int | None = None) -> None:
    for line in json.dumps(data, indent=indent).replace("\x7f", "\\u007f").splitlines():
        echo(line)


def escape_what_streams_lack() -> None:
    """Characters that stdout's and stderr's encodings don't have are escaped, not errors."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


@contextmanager
def progress_bar(what: str, *, shown: bool = True, lines: bool = False) -> Iterator[Report]:
    """A bar on a terminal; elsewhere nothing, or `lines`, one for each step that has its name for
    the first time. `report(what, done, total)` moves it."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        told: set[str] = set()

        def line(what: str, done: int, total: int) -> None:
            step = what.partition(", round ")[0]
            if lines and step not in told:
                told.add(step)
                echo(f"[{done + 1}/{total}] {step}", err=True)

        yield line
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True, markup=False),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda what, done, total: bar.update(
            task, completed=done, total=total, description=printable(what)
        )


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, aligned."""
    for line in _aligned(pairs):
        echo(line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, its cells never cut: they are measurements and reasons."""
    head, *body = _aligned([columns, *rows])
    for line in [head, _dash() * max(map(len, [head, *body])), *body]:
        echo(line)


def _dash() -> str:
    try:
        "─".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return "-"
    return "─"


def _aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
