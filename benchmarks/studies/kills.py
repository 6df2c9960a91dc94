"""A training run killed at random moments, and what it is in the end.

    python -m benchmarks.studies.kills            # 20 kills, some minutes

Runs `marfast train` on Fashion-MNIST in a process of its own with a checkpoint after each step,
kills it by SIGKILL after a random time, checks that every file in its folder is whole, goes on with
--resume, and again. At last the run is finished, and compared with the same run without an end.
Writes benchmarks/results/kills.json.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import marfast
from benchmarks.studies import RESULTS, ROOT
from marfast.bench.results import commit, write_rows

OPTIONS = ("--batch=16", "--mul=1", "--schedule=constant", "--threads=1", "--log-steps=1")


def command(folder: Path, epochs: int, *more: str) -> list[str]:
    run = ("-m", "marfast", "train", f"--out={folder}", f"--epochs={epochs}", "--resume")
    return [sys.executable, *run, *OPTIONS, *more]


def kill_one(folder: Path, seconds: float) -> None:
    """Start, wait until a checkpoint is newer than the start, and so much longer."""
    counts = folder / "last" / "state.json"
    before = counts.stat().st_mtime_ns if counts.exists() else 0
    process = subprocess.Popen(
        command(folder, 1000, "--save-minutes=0"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    while not counts.exists() or counts.stat().st_mtime_ns == before:
        if process.poll() is not None:
            raise SystemExit(f"the run ended by itself: {process.returncode}")
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def check_whole(folder: Path) -> int:
    """Read every file; how many steps the checkpoint has."""
    for file in folder.rglob("*"):
        if ".part" in str(file.relative_to(folder)):
            continue  # what the dead process was writing: the next one takes it away
        if file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".csv":
            assert file.read_text().endswith("\n"), file
    marfast.load(folder / "last")
    return int(json.loads((folder / "last" / "state.json").read_text())["step"])


def finish(folder: Path, steps: int) -> None:
    """Go on, in this process, until so many steps are made."""
    from marfast.checkpoints import get_preset
    from marfast.training import Session, open_data, train
    from marfast.training.saved import PLAN, Plan
    from marfast.training.settings import recipe
    from marfast.training.training import Progress

    preset = get_preset("fashion-mnist")
    plan = folder / PLAN
    settings = recipe("fashion-mnist").replace(batch=16, mul=1, schedule="constant", epochs=1000)
    if plan.exists():
        settings = Plan.read(folder).settings

    def report(progress: Progress) -> None:
        if progress.step == steps - 1:
            signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in a shell's background

    data = open_data("fashion-mnist", preset.architecture)
    train(
        *(preset, data, folder, settings),
        session=Session.of(save_minutes=1e6, log_steps=1),
        resume=True,
        report=report,
    )


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same bits."""
    names = sorted(path.name for path in (first / "last").glob("*.safetensors"))
    for name in names:
        a, b = (load_file(folder / "last" / name) for folder in (first, second))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("outputs/kills"), help="made anew")
    parser.add_argument("--results", type=Path, default=RESULTS / "kills.json")
    chosen = parser.parse_args()
    of_commit = commit()
    torch.set_num_threads(1)
    shutil.rmtree(chosen.folder, ignore_errors=True)
    killed, whole = chosen.folder / "killed", chosen.folder / "whole"
    moments = random.Random(0)
    rows: list[dict[str, Any]] = []
    for i in range(chosen.kills):
        seconds = moments.uniform(0, 2)
        kill_one(killed, seconds)
        left = len([*killed.glob(".marfast-*.part")])
        rows.append({"seconds": seconds, "step": check_whole(killed), "cut_while_writing": left})
        print(f"kill {i + 1}: checkpoint of step {rows[-1]['step']}, all files whole", flush=True)
    steps = rows[-1]["step"] + 5
    for folder in (killed, whole):
        finish(folder, steps)
    equal = same(killed, whole)
    print(f"{steps} steps: {'equal' if equal else 'DIFFERENT'}")
    write_rows(chosen.results, rows, force=True, commit=of_commit, steps=steps, bit_equal=equal)
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
