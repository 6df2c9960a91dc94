"""`marfast profile`: a `generate` under Nsight Systems, Nsight Compute or torch's profiler."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import marfast
from marfast.cli.console import print_pairs
from marfast.cli.errors import bad
from marfast.cli.target import check_file
from marfast.files import replacing, sweep

NSYS = (
    "profile",
    "--trace=cuda,nvtx,osrt",
    "--cuda-graph-trace=node",  # the kernels inside a graph, not the graph as one
)
NCU = (
    "--set=full",
    "--graph-profiling=node",
    "--launch-skip=1",  # the first launch compiles and warms up
    "--launch-count=1",
)
# As `python -P -m marfast`, without Python 3.10's lack of -P: nothing of the current folder runs.
# The last place is where this package lies, installed or not.
PROGRAM = f"""
import sys
sys.argv[0] = "marfast"
sys.path = [place for place in sys.path if place] + [{str(Path(marfast.__file__).parents[1])!r}]
from marfast.cli import main
main()
"""


def profile(
    context: typer.Context,
    command: Annotated[str, typer.Argument(metavar="generate", help="The command to profile.")],
    trace: Annotated[
        str, typer.Option(metavar="FILE", help="Where to write it; the tools have own suffixes.")
    ] = "marfast-trace.json",
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By ncu, one launch of the kernels of such a name."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a trace that exists.")] = False,
) -> None:
    """Profile a generation; what follows `generate` is passed on to it.

    Under nsys, if it is on PATH; else a trace of torch's profiler for ui.perfetto.dev. Both have
    the same named ranges. With --kernel, one launch under ncu.
    """
    if command != "generate":
        raise bad("COMMAND", f"{command!r}; allowed is generate")
    nsys, ncu = shutil.which("nsys"), shutil.which("ncu")
    if kernel is not None and ncu is None:
        raise bad("--kernel", "it needs Nsight Compute's ncu, which is not on PATH")
    suffix = ".ncu-rep" if kernel is not None else ".nsys-rep" if nsys else ""
    file = check_file("--trace", trace and str(_named(trace, suffix)), force)
    _run([command, "--dry-run", *context.args])

    program = [sys.executable, "-c", PROGRAM, command, *context.args]
    if kernel is not None and ncu is not None:
        chosen = (f"--kernel-name=regex:{kernel}", f"--export={file.with_suffix('')}")
        overwrite = ["--force-overwrite"] if force else []
        raise typer.Exit(subprocess.run([ncu, *NCU, *overwrite, *chosen, *program]).returncode)
    if nsys:
        where = f"--output={file.with_suffix('')}"
        overwrite = ["--force-overwrite=true"] if force else []
        raise typer.Exit(subprocess.run([nsys, *NSYS, *overwrite, where, *program]).returncode)
    from marfast import profiling

    sweep(file.parent)
    with replacing(file, force=force) as unfinished:
        profiling.trace(partial(_run, [command, *context.args]), str(unfinished))
    print_pairs([("trace", f"{file} (open it at ui.perfetto.dev)")])


def _named(trace: str, suffix: str) -> Path:
    """The file that a tool writes for a trace."""
    path = Path(trace)
    return path.with_suffix(suffix) if suffix and path.name else path


def _run(arguments: list[str]) -> None:
    from marfast.cli.app import app

    try:
        app(arguments, prog_name="marfast")
    except SystemExit as end:
        if end.code:
            raise
