"""Results that outlive a run which is cut off: a JSON file, written anew after every row."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from marfast.bench.results import Row, commit, read_rows, write_rows

LOST = 4
"""Exit status of a process whose device is lost: another goes on where it stopped."""
BEGAN = "it began, and its process ended"


class Rows:
    """Rows by case. A case whose row is there is not measured again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Row] = {row["case"]: row for row in read_rows(file)}
        self._lock = threading.Lock()

    def keep(self, case: str, row: Row) -> None:
        with self._lock:
            self.rows[case] = {"case": case, **row}
            write_rows(self.file, list(self.rows.values()), force=True, commit=commit())

    def measure(self, case: str, run: Callable[[], Row]) -> None:
        """Keeps what `run` returns or raises; ends the process if the device is lost by then."""
        if case in self.rows:
            return
        self.keep(case, {"failed": BEGAN})
        try:
            row = run()
        except Exception as error:
            row = {"failed": f"{type(error).__name__}: {error}"[:400]}
        self.keep(case, row)
        print(json.dumps(self.rows[case]), flush=True)
        if "failed" in row and _is_lost():
            sys.exit(LOST)

    def failures(self) -> list[str]:
        return [case for case, row in self.rows.items() if "failed" in row]


def _is_lost() -> bool:
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
