"""`marfast profile`: a command or a script under Nsight's tools, or torch's profiler."""

import runpy
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import marfast
from marfast.cli.console import echo, print_pairs, print_table
from marfast.cli.errors import bad
from marfast.cli.target import check_file
from marfast.files import replacing, sweep

if TYPE_CHECKING:
    from marfast.profiling import Spent

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


COMMANDS = ("generate", "edit", "bench")
SHOWN = 12
"""Operators that the terminal shows, besides marfast's."""
OWN = "marfast::"


def profile(
    context: typer.Context,
    command: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND", help="generate, edit or bench, or a script of yours: script.py."
        ),
    ],
    trace: Annotated[
        str, typer.Option(metavar="FILE", help="Where to write it; the tools have own suffixes.")
    ] = "marfast-trace.json",
    kernel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By ncu, one launch of the kernels of such a name."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a trace that exists.")] = False,
) -> None:
    """Profile a command, or a script that uses marfast; what follows is passed on to it.

    Under nsys, if it is on PATH; else a trace of torch's profiler for ui.perfetto.dev, and a
    summary here. Both have the same named ranges. With --kernel, one launch under ncu.
    """
    is_script = command.endswith(".py")
    if not is_script and command not in COMMANDS:
        raise bad("COMMAND", f"{command!r}; allowed are {', '.join(COMMANDS)}, or a script.py")
    if is_script and not Path(command).is_file():
        raise bad("COMMAND", f"{command}: no such file")
    nsys, ncu = shutil.which("nsys"), shutil.which("ncu")
    if kernel is not None and ncu is None:
        raise bad("--kernel", "it needs Nsight Compute's ncu, which is not on PATH")
    suffix = ".ncu-rep" if kernel is not None else ".nsys-rep" if nsys else ""
    file = check_file("--trace", trace and str(_named(trace, suffix)), force)
    work = [command, *context.args]
    if not is_script:
        _run([command, "--dry-run", *context.args])
    if (nsys or ncu) and find_spec("nvtx") is None:
        echo("warning: ranges have no names without nvtx: pip install nvtx", err=True)

    program = [sys.executable, *([] if is_script else ["-c", PROGRAM]), *work]
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
    run = partial(_run_script if is_script else _run, work)
    with replacing(file, force=force) as unfinished:
        spent = profiling.trace(run, str(unfinished))
    _print(spent)
    print_pairs([("trace", f"{file} (open it at ui.perfetto.dev)")])


def _print(spent: "list[Spent]") -> None:
    """Ranges, then the operators that took most."""
    whole = sum(one.own for one in spent) or 1.0
    on_device = sum(one.device for one in spent)

    def cells(one: "Spent") -> tuple[object, ...]:
        times = (f"{1e3 * one.total:.1f}", f"{1e3 * one.own:.1f}", f"{100 * one.own / whole:.1f} %")
        device = (f"{1e3 * one.device:.1f}",) if on_device else ()
        return (one.name, one.calls, *times, *device)

    columns = ("calls", "total ms", "own ms", "share", *(("GPU ms",) if on_device else ()))
    ranges = sorted((one for one in spent if one.is_range), key=lambda one: -one.total)
    if ranges:
        print_table(("range", *columns), map(cells, ranges))
        echo()
    others = [one for one in spent if not one.is_range]
    operators = others[:SHOWN] + [one for one in others[SHOWN:] if one.name.startswith(OWN)]
    print_table(("operator", *columns), map(cells, operators))
    echo()


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


def _run_script(arguments: list[str]) -> None:
    """As `python script.py …`; the script's own errors are its own."""
    before = sys.argv, sys.path[:]
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv, sys.path[:] = before
