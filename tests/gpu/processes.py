"""Commands within a time: each leads a process group of its own, which ends with it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int | None  # None: it took too long
    seconds: float
    printed: str

    @property
    def reason(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.status is None:
            return f"it took more than {self.seconds:.0f} s"
        return f"exit status {self.status}" if self.status else ""


def run(
    command: Sequence[str], seconds: float, log: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """What it prints goes to the end of `log` as it comes. Whatever it started is ended, too."""
    start = time.perf_counter()
    with log.open("ab") as out:
        out.write(f"\n==== {' '.join(command)}\n".encode())
        out.flush()
        begin = out.tell()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with log.open("rb") as file:
        file.seek(begin)
        printed = file.read().decode(errors="replace")
    return Ended(status, round(time.perf_counter() - start, 1), printed)
