"""A run that makes images: into an output as they come, told of at its end or when it is cut."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import typer
from torch import Tensor

from marfast import startup
from marfast.cli.console import echo, print_pairs, progress_bar
from marfast.cli.output import Output
from marfast.errors import is_out_of_memory
from marfast.generation.progress import Progress
from marfast.ops import choice


def run(
    what: str, made: int, make: Callable[[Progress], Iterable[Tensor]], output: Output
) -> dict[str, Any]:
    """Put `made` images, as `make` makes them some at a time, into the output; what there is to
    tell about it."""
    start = time.perf_counter()
    try:
        with progress_bar(what) as report, choice.used() as used:
            for images in make(lambda done, total: report(what, done, total)):
                output.add(images)
            output.finish()
    except KeyboardInterrupt:
        echo(f"interrupted: {output.describe()}", err=True)
        raise typer.Exit(startup.INTERRUPTED) from None
    except (OSError, MemoryError, RuntimeError) as error:
        memory = is_out_of_memory(error)
        if not memory and not isinstance(error, OSError):
            raise
        said = "out of memory" if memory else f"{output.path}: {error}"
        echo(f"error: {said}; {output.describe()}", err=True)
        raise typer.Exit(2 if memory else 1) from None
    seconds = time.perf_counter() - start
    return {
        "images": made,
        "seconds": round(seconds, 3),
        "images_per_second": round(made / seconds, 3),
        "backends": {op: sorted(backends) for op, backends in used.items()},
        "out": str(output.path),
    }


def print_result(result: Mapping[str, Any], kind: str) -> None:
    """What `run` returned; `kind` is what was written, a file or a folder."""
    backends = (f"{op}: {', '.join(names)}" for op, names in result["backends"].items())
    print_pairs(
        [
            ("images", result["images"]),
            ("time", f"{result['seconds']:.1f} s ({result['images_per_second']:.2f} images/s)"),
            ("backends", "; ".join(backends)),
            (kind, result["out"]),
        ]
    )
