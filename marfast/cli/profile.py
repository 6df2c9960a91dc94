"""`marfast profile`: a `generate` under Nsight Systems, Nsight Compute or torch's profiler."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from marfast import profiling
from marfast.cli.console import print_pairs
from marfast.cli.errors import bad
from marfast.files import replacing

NSYS = (
    "profile",
    "--trace=cuda,nvtx,osrt",
    "--cuda-graph-trace=node",  # the kernels inside a graph, not the graph as one
    "--force-overwrite=true",
)
NCU = (
    "--set=full",
    "--graph-profiling=node",
    "--launch-skip=1",  # the first launch compiles and warms up
    "--launch-count=1",
    "--force-overwrite",
)


def profile(
    context: typer.Context,
    command: Annotated[str, typer.Argument(metavar="generate", help="The command to profile.")],
    trace: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write it; the tools add a suffix.")
    ] = Path("marfast-trace.json"),
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By ncu, one launch of the kernels of such a name."),
    ] = None,
) -> None:
    """Profile a generation; what follows `generate` is passed on to it.

    Under nsys, if it is on PATH; else a trace of torch's profiler for ui.perfetto.dev. Both have
    the same named ranges. With --kernel, one launch under ncu.
    """
    if command != "generate":
        raise bad("COMMAND", f"{command!r}; allowed is generate")
    if not trace.parent.is_dir():
        raise bad("--trace", f"{trace}: {trace.parent} is not a folder")
    program = [sys.executable, "-m", "marfast", command, *context.args]
    file = trace.with_suffix("")
    if kernel is not None:
        ncu = shutil.which("ncu")
        if ncu is None:
            raise bad("--kernel", "it needs Nsight Compute's ncu, which is not on PATH")
        chosen = f"--kernel-name=regex:{kernel}"
        raise typer.Exit(
            subprocess.run([ncu, *NCU, chosen, f"--export={file}", *program]).returncode
        )
    if nsys := shutil.which("nsys"):
        raise typer.Exit(subprocess.run([nsys, *NSYS, f"--output={file}", *program]).returncode)
    with replacing(trace) as unfinished:
        profiling.trace(partial(_run, [command, *context.args]), str(unfinished))
    print_pairs([("trace", f"{trace} (open it at ui.perfetto.dev)")])


def _run(arguments: list[str]) -> None:
    from marfast.cli.app import app

    try:
        app(arguments, prog_name="marfast")
    except SystemExit as end:
        if end.code:
            raise
