"""Ways to run the program: inside this process, or as a user does."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

import marfast
from marfast.cli.app import app
from tests.limits import HANG

TINY = ("--num-iter", "2", "--steps", "4")
ROOT = Path(marfast.__file__).parents[1]


def invoke(*args: str) -> Result:
    """In this process; a bug's exception is raised here."""
    result = CliRunner().invoke(app, list(args), prog_name="marfast")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def generate(*args: str) -> Result:
    """`marfast generate` with settings that take no time."""
    return invoke("generate", *TINY, *args)


def start(*args: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """`python -m marfast`, or another `program` of Python's, in a process of its own, stdout and
    stderr in pipes."""
    program = options.pop("program", ("-m", "marfast"))
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), *([given] if given else [])])  # an empty place is `cwd`
    environment = os.environ | {"PYTHONPATH": path} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [sys.executable, *program, *args],
        cwd=cwd,
        env=environment,
        text=True,
        # A test run in the background ignores SIGINT, and its children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )


def run(*args: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m marfast`."""
    process = start(*args, cwd=cwd, env=env or {})
    stdout, stderr = process.communicate(timeout=HANG)
    return process.returncode, stdout, stderr


def files(folder: Path) -> dict[str, bytes]:
    """Everything under a folder: relative path -> contents."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
