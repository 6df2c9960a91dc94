"""What goes to the terminal: tables and pairs on stdout, a progress bar on stderr."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import typer

Report = Callable[[str, int, int], None]


@contextmanager
def progress_bar(what: str) -> Iterator[Report]:
    """A bar on a terminal, nothing elsewhere. `report(what, done, total)` moves it."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description}"),
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
            task, completed=done, total=total, description=what
        )


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, aligned."""
    for line in _aligned(pairs):
        typer.echo(line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table, its cells never cut: they are measurements and reasons."""
    head, *body = _aligned([columns, *rows])
    typer.echo("\n".join([head, "─" * max(map(len, [head, *body])), *body]))


def _aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
