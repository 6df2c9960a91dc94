"""Operator calls and instructions are what was committed: a guard that no busy machine blurs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import counts

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["operators", "instructions"])
def test_the_work_is_what_was_committed(kind: str) -> None:
    command = (sys.executable, "-m", "benchmarks.studies.counts", kind)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("now", "well"), [({"a": 1030}, True), ({"a": 1031}, False), ({"a": 960}, False), ({}, False)]
)
def test_a_figure_out_of_range_is_named(now: counts.Figures, well: bool, capsys: Any) -> None:
    assert counts.compare("instructions", {"a": 1000}, now) == well
    assert ("OUT OF RANGE" in capsys.readouterr().out) == (not well)


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(counts.Unavailable, match="valgrind"):
        counts.instructions()


def test_figures_of_another_version_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(counts, "FILE", tmp_path / "counts.json")
    monkeypatch.setitem(counts.KINDS, "instructions", lambda: ("GNU 99", lambda: {"a": 1}))
    counts.FILE.write_text('{"instructions": {"GNU 12.2.0": {"a": 9}}}')
    monkeypatch.setattr("sys.argv", ["counts", "instructions"])
    with pytest.raises(SystemExit) as end:
        counts.main()
    assert end.value.code == counts.LEFT_OUT
    assert "no figures of GNU 99, only of GNU 12.2.0" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["counts", "--update", "instructions"])
    with pytest.raises(SystemExit):
        counts.main()
    assert json.loads(counts.FILE.read_text())["instructions"] == {
        "GNU 12.2.0": {"a": 9},
        "GNU 99": {"a": 1},
    }
