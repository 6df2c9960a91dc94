"""`marfast profile`: nsys with the right options where there is one, else a trace."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from marfast import profiling
from tests.cli.program import TINY, files, invoke, start
from tests.limits import HANG

IMAGE = ("generate", "--labels", "3", *TINY)


def run(cwd: Path, *args: str, path: str = os.defpath) -> tuple[int, str, str]:
    process = start("profile", *args, cwd=cwd, env={"PATH": path})
    out, err = process.communicate(timeout=HANG)
    return process.returncode, out, err


def tool(folder: Path, name: str, script: str) -> str:
    """The PATH that has a tool which is this script of the shell."""
    (folder / "bin").mkdir()
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return os.pathsep.join([str(file.parent), os.defpath])


SHOW = 'for word in "$@"; do echo "$word"; done'
RUN = 'while [ "$1" != "$PYTHON" ]; do shift; done; exec "$@"'


def test_without_nsys_a_trace_has_the_ranges(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "--trace", "t.json", *IMAGE, "--out", "3.png")
    assert status == 0, err
    assert "perfetto" in out
    lines = [line.split() for line in out.splitlines()]
    assert next(line for line in lines if line[:1] == ["iteration"])[1].isdecimal()
    assert {"head", "encoder", "decoder"} <= {line[0] for line in lines if line}
    assert any(line[:1] == ["marfast::ddpm_sample"] for line in lines)
    events = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["traceEvents"]
    names = {event["name"] for event in events if event["name"].startswith("marfast::")}
    assert {"marfast::iteration 0", "marfast::encoder", "marfast::decoder"} <= names
    assert "marfast::head" in names
    assert (tmp_path / "3.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script")
def test_nsys_gets_its_options_and_its_status_is_ours(tmp_path: Path) -> None:
    path = tool(tmp_path, "nsys", SHOW + "\nexit 3")
    status, out, _ = run(tmp_path, "--trace", "t.json", *IMAGE, "--out", "3.png", path=path)
    assert status == 3
    words = out.splitlines()
    assert words[0] == "profile"
    assert "--trace=cuda,nvtx,osrt" in words
    assert "--cuda-graph-trace=node" in words
    assert f"--output={tmp_path.resolve() / 't'}" in words
    assert words[-len(IMAGE) - 2 :] == [*IMAGE, "--out", "3.png"]
    assert not any(word.startswith("--force") for word in words)
    args = ("--trace", "t.json", "--force", *IMAGE, "--out", "3.png")
    assert "--force-overwrite=true" in run(tmp_path, *args, path=path)[1].splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script")
def test_ncu_gets_one_launch_of_the_kernel(tmp_path: Path) -> None:
    path = tool(tmp_path, "ncu", SHOW)
    status, out, _ = run(tmp_path, "--kernel", "ddpm_step", *IMAGE, "--out", "3.png", path=path)
    assert status == 0
    words = out.splitlines()
    assert {"--kernel-name=regex:ddpm_step", "--launch-skip=1", "--launch-count=1"} <= {*words}
    assert f"--export={tmp_path.resolve() / 'marfast-trace'}" in words
    assert words[-len(IMAGE) - 2 :] == [*IMAGE, "--out", "3.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="the tool is a shell script")
def test_code_of_the_current_folder_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "marfast").mkdir()
    for name in ("marfast/__init__.py", "json.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit(7)")
    path = tool(tmp_path, "nsys", f"PYTHON={shlex.quote(sys.executable)}\n{RUN}")
    process = start(
        *("profile", *IMAGE, "--out", "3.png"),
        cwd=tmp_path,
        env={"PATH": path},
        program=("-c", "import sys; del sys.path[0]; from marfast.cli import main; main()"),
    )
    _, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (0, "")
    assert (tmp_path / "3.png").exists()


@pytest.mark.parametrize("suffix", [".json", ".nsys-rep"])
def test_what_is_there_is_replaced_only_if_asked(suffix: str, tmp_path: Path) -> None:
    path = os.defpath if suffix == ".json" else tool(tmp_path, "nsys", "exit 0")
    there, link = tmp_path / f"t{suffix}", tmp_path / f"link{suffix}"
    there.write_text("precious")
    link.symlink_to(there)
    image = (*IMAGE, "--out", "3.png")
    for trace in ("t.json", "link.json"):
        status, out, err = run(tmp_path, "--trace", trace, *image, path=path)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert "exists; --force replaces it" in err
    assert there.read_text() == "precious"
    assert not (tmp_path / "3.png").exists()
    if suffix == ".json":
        assert run(tmp_path, "--trace", "link.json", "--force", *image)[0] == 0
        assert link.is_symlink()
        assert json.loads(there.read_text())["traceEvents"]


@pytest.mark.parametrize(
    "args",
    [
        ("bench",),
        ("--kernel=x", *IMAGE),
        *(("--trace", trace, *IMAGE) for trace in ("", ".", "/", "/proc/t.json", "file/t.json")),
        *(("--trace", trace, *IMAGE) for trace in ("x" * 300, "x" * 300 + "/t.json", "folder")),
        *((*IMAGE, *more) for more in (("--labels", "99"), ("--seed", "-1"), ("--no",), ())),
    ],
    ids=lambda args: " ".join(args)[:30],
)
def test_bad_input_is_refused_before_anything_is_profiled(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.defpath)
    Path("file").write_text("precious")
    Path("folder").mkdir()
    before = files(tmp_path)

    def trace(*_: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(profiling, "trace", trace)
    result = invoke("profile", *args, *(("--out", "3.png") if len(args) > len(IMAGE) else ()))
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert files(tmp_path) == before


def test_a_trace_that_torch_cannot_write_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", lambda *_: None)
    result = invoke("profile", "--trace=t.json", *IMAGE, "--out", "3.png")
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert "could not write it" in line
    assert {*files(tmp_path)} == {"3.png"}


def test_a_failing_command_leaves_no_trace(tmp_path: Path) -> None:
    status, _, _ = run(
        tmp_path, "--trace", "t.json", "generate", "--labels", "99", "--out", "x.png"
    )
    assert status == 2
    assert not (tmp_path / "t.json").exists()


def test_a_script_is_profiled_as_python_runs_it(tmp_path: Path) -> None:
    script = """
import sys, torch
from marfast import profiling
with profiling.range("head", 3):
    print(sys.argv, __name__, torch.ones(3).sum().item())
"""
    (tmp_path / "mine.py").write_text(script)
    status, out, err = run(tmp_path, "--trace", "t.json", "mine.py", "--n", "3")
    assert status == 0, err
    assert "['mine.py', '--n', '3'] __main__ 3.0" in out
    assert any(line.split()[:2] == ["head", "1"] for line in out.splitlines())
