"""The program as a whole: help, version, pipes and terminals."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import marfast
from marfast.checkpoints import Preset, Settings, embedded_models
from marfast.cli import bench as bench_command
from marfast.cli import verify as verify_command
from marfast.cli.app import app
from marfast.verifying.report import Report
from tests.cli.program import TINY, invoke, run, start
from tests.models import LATENT, tiny_autoencoder, tiny_weights

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
ASSETS = embedded_models()["fashion-mnist"]


def examples(*command: str) -> list[list[str]]:
    """The command lines after "Example" in a help text."""
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    _, _, after = result.stdout.partition("Example")
    return [shlex.split(line)[1:] for line in after.splitlines() if "marfast " in line]


EXAMPLES = [line for command in ([], *([c] for c in COMMANDS)) for line in examples(*command)]


def test_every_help_has_an_example() -> None:
    assert sorted(COMMANDS) == ["bench", "convert", "generate", "info", "profile", "verify"]
    for command in COMMANDS:
        assert any(line[0] == command for line in examples(command))
    assert examples()


@pytest.mark.parametrize("line", EXAMPLES, ids=shlex.join)
def test_examples_work(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_ema": load_file(ASSETS / "model.safetensors")}, "mine.pth")
    shutil.copy(ASSETS / "config.json", "mine.json")
    torch.save(tiny_weights(LATENT), "latents.pth")
    Path("latents.json").write_text(json.dumps(Preset(LATENT, Settings(num_iter=1)).to_dict()))
    torch.save({"model": tiny_autoencoder().state_dict()}, "kl16.ckpt")
    monkeypatch.setattr(verify_command, "gather", lambda *_, **__: Report())
    monkeypatch.setattr(bench_command, "_measure", lambda *_: iter(()))
    result = invoke(*line, *(("--num-iter=1", "--steps=2") if line[0] == "generate" else ()))
    assert result.exit_code == 0, result.output
    if line[0] == "generate":
        assert Path(line[line.index("--out") + 1]).exists()


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path) == (0, f"marfast {marfast.__version__}\n", "")


def test_no_progress_in_a_pipe(tmp_path: Path) -> None:
    colourful = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    arguments = ("generate", *TINY, "--labels=3", "--out=a.png")
    status, stdout, stderr = run(*arguments, cwd=tmp_path, env=colourful)
    assert (status, stderr) == (0, "")
    assert len(stdout.splitlines()) == 4
    assert "\x1b" not in stdout


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    arguments = ("generate", *TINY, "--labels=3", "--out=a.png", "--json")
    process = start(*arguments, cwd=tmp_path, stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    stdout, _ = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 0
    assert b"generating" in shown
    assert stdout.startswith("{")
    assert stdout.count("\n") == 1


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux tells that the other end is closed
        return b""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Report:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(verify_command, "gather", broken)
    with pytest.raises(ZeroDivisionError):
        invoke("verify")
