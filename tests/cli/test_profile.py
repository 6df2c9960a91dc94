"""`marfast profile`: nsys with the right options where there is one, else a trace."""

import json
import os
import sys
from pathlib import Path

import pytest

from .program import TINY, start

IMAGE = ("generate", "--labels", "3", *TINY)


def run(cwd: Path, *args: str, path: str = os.defpath) -> tuple[int, str, str]:
    process = start("profile", *args, cwd=cwd, env={"PATH": path})
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_without_nsys_a_trace_has_the_ranges(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "--trace", "t.json", *IMAGE, "--out", "3.png")
    assert status == 0, err
    assert "perfetto" in out
    events = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["traceEvents"]
    names = {event["name"] for event in events if event["name"].startswith("marfast::")}
    assert {"marfast::iteration 0", "marfast::encoder", "marfast::decoder"} <= names
    assert "marfast::head" in names
    assert (tmp_path / "3.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script")
def test_nsys_gets_its_options_and_its_status_is_ours(tmp_path: Path) -> None:
    tool = tmp_path / "nsys"
    tool.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\nexit 3\n')
    tool.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.defpath])
    status, out, _ = run(tmp_path, "--trace", "t.json", *IMAGE, "--out", "3.png", path=path)
    assert status == 3
    words = out.splitlines()
    assert words[0] == "profile"
    assert "--trace=cuda,nvtx,osrt" in words
    assert "--cuda-graph-trace=node" in words
    assert "--output=t" in words
    assert words[words.index("-m") :] == ["-m", "marfast", *IMAGE, "--out", "3.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script")
def test_ncu_gets_one_launch_of_the_kernel(tmp_path: Path) -> None:
    tool = tmp_path / "ncu"
    tool.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    tool.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.defpath])
    status, out, _ = run(tmp_path, "--kernel", "ddpm_step", *IMAGE, "--out", "3.png", path=path)
    assert status == 0
    words = out.splitlines()
    assert {"--kernel-name=regex:ddpm_step", "--launch-skip=1", "--launch-count=1"} <= {*words}
    assert "--export=marfast-trace" in words
    assert words[words.index("-m") :] == ["-m", "marfast", *IMAGE, "--out", "3.png"]


@pytest.mark.parametrize(
    "args", [("bench",), ("--kernel=x", *IMAGE), ("--trace", "no/t.json", *IMAGE)]
)
def test_bad_input_is_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    status, _, err = run(tmp_path, *args)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "error: " in err


def test_a_failing_command_leaves_no_trace(tmp_path: Path) -> None:
    status, _, _ = run(
        tmp_path, "--trace", "t.json", "generate", "--labels", "99", "--out", "x.png"
    )
    assert status == 2
    assert not (tmp_path / "t.json").exists()
