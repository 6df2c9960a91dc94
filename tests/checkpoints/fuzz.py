"""Loads every file of the corpus in one process that has little memory; prints what came of it.

Run by hand, it writes the corpus to a temporary folder first:

    python -m tests.checkpoints.fuzz
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import marfast
from marfast.checkpoints import CheckpointError
from marfast.checkpoints.read import read_weights
from tests.checkpoints.corpus import ARCHITECTURE, PRESET, samples
from tests.limits import FILE_HANG, LONG_HANG

MEMORY = 192 << 20  # bytes that the process may take beyond what it has when it starts
INDEX, MARKER, RESULT = "index.json", "code-has-run", "result.json"


def write_corpus(folder: Path) -> None:
    index = []
    for i, sample in enumerate(samples(folder / MARKER)):
        place = folder / str(i)
        place.mkdir()
        path = sample.write(place)
        index.append([str(path), sample.kind, sample.damaged, sample.says])
    (folder / INDEX).write_text(json.dumps(index))


def run(folder: Path) -> dict[str, Any]:
    """What came of a written corpus, from a process of its own."""
    command = [sys.executable, "-m", "tests.checkpoints.fuzz", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LONG_HANG)
    if done.returncode:
        return {"failures": [f"exit status {done.returncode}: {done.stderr[-2000:]}"]}
    result: dict[str, Any] = json.loads((folder / RESULT).read_text())
    return result


def load_all(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    marfast.load("fashion-mnist")  # what is imported late, before memory is short
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    module, marker = ARCHITECTURE.build(), folder / MARKER
    counts, failures, slowest = Counter[str](), [], 0.0
    for name, kind, damaged, says in json.loads((folder / INDEX).read_text()):
        path, start = Path(name), time.process_time()
        outcome, wrong = load(path, damaged, says)
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        counts[outcome] += 1
        if seconds > FILE_HANG:
            wrong = f"takes {seconds:.1f} s"
        if outcome == "refused" and fills(path, module):
            wrong = "has filled a module"
        if marker.exists():
            marker.rename(folder / f"{marker.name}-of-{path.parent.name}")
            wrong = "its code has run"
        if wrong:
            failures.append(f"{path}: {kind}: {outcome}, {wrong}")
    return {
        "tried": counts.total(),
        **counts,
        "failures": failures,
        "slowest_s": round(slowest, 2),
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def load(path: Path, damaged: bool, says: bool) -> tuple[str, str]:
    """What came of a file (unreadable, refused, loaded or crashed), and what is wrong with that."""
    try:
        pipeline = marfast.load(path, None if says else PRESET)
    except (CheckpointError, FileNotFoundError, ValueError) as error:
        text = str(error)
        outcome = "unreadable" if "not readable as" in text else "refused"
        if "memory" in text.lower():
            return outcome, "for want of memory"
        clear = str(path) in text and text.isprintable() and len(text) < 1000
        return outcome, "" if clear else f"says {text[:1000]!r}"
    except BaseException as error:
        return "crashed", f"{type(error).__name__}: {str(error)[:1000]!r}"
    loaded = pipeline.model.module.state_dict()
    if not damaged:
        return "loaded", "should have been refused"
    finite = all(value.isfinite().all() for value in loaded.values())
    return "loaded", "" if finite else "is not finite"


def fills(path: Path, module: torch.nn.Module) -> bool:
    """Whether any parameter of a module without storage has got one from bad weights."""
    try:
        read_weights(path).fill(module)
    except (CheckpointError, FileNotFoundError):
        return not all(parameter.is_meta for parameter in module.parameters())
    module.to("meta")  # good weights, in a file or folder that says something else
    return False


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        (folder / RESULT).write_text(json.dumps(load_all(folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_corpus(Path(temporary))
        print(json.dumps(run(Path(temporary)), indent=2))


if __name__ == "__main__":
    main()
