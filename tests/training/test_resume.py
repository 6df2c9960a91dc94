"""A run that is stopped or killed, and gone on with, is the run without an end, bit for bit."""

import json
import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marfast
from marfast.training.data import Data
from marfast.training.training import Progress
from tests.limits import HANG
from tests.models import SEQUENCE
from tests.training.killed import run as run_to_be_killed
from tests.training.runs import QUICK, RARELY, assert_same_state, go, images, preset, sequences

KILLS = 3
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.training.killed"])


def stopping_at(*steps: int) -> Callable[[Progress], None]:
    """A signal, as Ctrl-C sends it, in these steps."""

    def report(progress: Progress) -> None:
        if progress.step in steps:
            signal.raise_signal(signal.SIGINT)

    return report


def in_sessions(folder: Path, **more: Any) -> list[int]:
    """A run that is stopped twice; how many steps each session made."""
    made = []
    for _ in range(3):
        np.random.seed(len(made))
        torch.manual_seed(len(made))  # a run's random numbers are its own
        now = go(folder, session=RARELY, resume=True, report=stopping_at(2, 6), **more)
        assert now.interrupted is not now.finished
        made.append(now.steps_made)
    return made


def test_a_run_in_sessions_is_the_run_in_one(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", session=RARELY)
    assert whole.finished
    assert (whole.step, whole.steps_made) == (10, 10)
    assert in_sessions(tmp_path / "parts") == [3, 4, 3]
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    rows = [untimed((tmp_path / name / "log.csv").read_text()) for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    assert [row[0] for row in rows[0]] == ["step", "2", "4", "6", "8", "10"]


def untimed(log: str) -> list[list[str]]:
    rows = [line.split(",") for line in log.splitlines()]
    return [[*row[:5], row[7]] for row in rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 2},
        {"dtype": "bfloat16", "grad_checkpointing": True},
        {"ema": (), "schedule": "cosine", "clip": 0.0},
    ],
)
def test_whatever_the_settings(changes: dict[str, object], tmp_path: Path) -> None:
    settings = QUICK.replace(**changes)
    go(tmp_path / "whole", settings=settings, session=RARELY)
    in_sessions(tmp_path / "parts", settings=settings)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def test_sequences(tmp_path: Path) -> None:
    of = {"data": sequences(), "model": preset(SEQUENCE)}
    go(tmp_path / "whole", session=RARELY, **of)
    in_sessions(tmp_path / "parts", **of)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def test_other_epochs_of_a_constant_rate_are_the_same_run(tmp_path: Path) -> None:
    go(tmp_path / "longer", settings=QUICK.replace(epochs=1), session=RARELY)
    assert go(tmp_path / "longer", session=RARELY, resume=True).steps_made == 5
    go(tmp_path / "whole", session=RARELY)
    assert_same_state(tmp_path / "whole", tmp_path / "longer")


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    go(tmp_path / "run", session=RARELY)
    before = (tmp_path / "run" / "last" / "state.json").stat().st_mtime_ns
    again = go(tmp_path / "run", resume=True)
    assert (again.steps_made, again.finished) == (0, True)
    assert (tmp_path / "run" / "last" / "state.json").stat().st_mtime_ns == before


def test_the_callers_generators_are_left_alone(tmp_path: Path) -> None:
    data: Data = images()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    go(tmp_path / "run", data=data, session=RARELY)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever the moment: all files are whole, and the run goes on exactly."""
    moments = random.Random(0)
    of = {"settings": QUICK.replace(epochs=10_000)}
    killed = tmp_path / "killed"
    steps: list[int] = []
    for _ in range(KILLS):
        heard, told = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=run_to_be_killed, args=(killed, of, told))
        process.start()
        assert heard.poll(HANG)  # a step is saved
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join(HANG)
        assert process.exitcode == -signal.SIGKILL
        steps.append(json.loads((killed / "last" / "state.json").read_text())["step"])
        assert marfast.load(killed / "last").generate([1], seed=0, num_iter=1).isfinite().all()
    assert steps == sorted({*steps})
    to_the_end = {"settings": QUICK.replace(epochs=steps[-1] // 5 + 2), "session": RARELY}
    go(killed, resume=True, **to_the_end)
    go(tmp_path / "whole", **to_the_end)
    assert_same_state(tmp_path / "whole", killed)
    assert sorted(path.name for path in killed.iterdir() if path.name != "tensorboard") == [
        *("last", "log.csv", "run.json")
    ]
