"""The program as a whole: help, version, pipes and terminals."""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer import core

import marfast
from marfast import verifying
from marfast.checkpoints import Preset, Settings, embedded_models
from marfast.cli import measuring, options
from marfast.cli.app import app
from marfast.evaluation import curve
from marfast.generation import load as loading
from marfast.reference.samplers import SAMPLERS
from marfast.verifying.report import Report
from tests.cli.program import TINY, invoke, run, start
from tests.limits import HANG
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
    makers = ["curve", "edit", "evaluate", "generate", "sample"]
    others = ["bench", "cache", "convert", "info", "profile", "train", "verify"]
    assert sorted(COMMANDS) == sorted([*makers, *others])
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
    monkeypatch.setattr(verifying, "verify", lambda *_, **__: Report())
    monkeypatch.setattr(measuring, "measured", lambda *_: iter(()))
    monkeypatch.setattr(curve, "measure", lambda *_, **__: iter(()))
    if "--like" in line or line[:2] == ["info", "shoes.png"]:
        marfast.save(marfast.load("fashion-mnist").generate(7, num_iter=1, seed=0), "shoes.png")
    Path("script.py").write_text("print(1)")
    for picture in ("boot", "shirt", "sleeve", "bag"):
        Image.new("L", (28, 28), 255).save(f"{picture}.png")
    for name in ("photos/a/0.png", "photos/b/0.png"):
        Path(name).parent.mkdir(parents=True)
        shutil.copy("boot.png", name)
    makes_images = line[0] in ("generate", "edit")
    many = ("--count=20", "--set=temperature=1", "--set=cfg=1", "--set=steps=2")
    one = ("--num-iter=1", "--steps=2")
    few = ("--data=photos", "--batch=2", "--epochs=1", "--mul=1")
    quick = {"edit": one, "generate": one, "sample": many, "evaluate": many}
    quick |= {"train": few, "cache": ("--img-size=8",)}
    result = invoke(*line, *quick.get(line[0], ()))
    assert result.exit_code == 0, result.output
    if makes_images:
        assert Path(line[line.index("--out") + 1]).exists()


def test_version(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path) == (0, f"marfast {marfast.__version__}\n", "")


LIGHT = """
import atexit, sys
from marfast.cli import main

def at_end():
    heavy = {"numpy", "torch", "safetensors"} & {*sys.modules}
    sys.stdout.write(f"heavy: {sorted(heavy)}")

atexit.register(at_end)
main()
"""
WITHOUT_TORCH = [
    *((*command, "--help") for command in ((), *((name,) for name in COMMANDS))),
    ("--version",),
    ("nothing",),
    ("generate", "--labels=3"),
    ("generate", "--labels=3", "--out=x.gif"),
    ("generate", "--labels=3", "--out=x.png", "--resume"),
    ("generate", "--labels=3", "--out=x.png", "--seed=-1"),
    ("edit", "--image=x.png", "--out=y.png"),
    ("edit", "--image=x.png", "--box=0,0,4,4", "--out=y.gif"),
    ("bench", "head-x"),
    ("bench", "head-b", "--rows=0"),
    ("bench", "head-b", "--out=/proc/x.json"),
    ("info", "--batch=2"),
    ("info", "--preset=mar_base"),
    ("profile", "bench"),
    ("profile", "--trace=", "generate"),
    ("profile", "--trace=/proc/t.json", "generate"),
    ("profile", "--kernel=x", "generate"),
    ("profile", "generate", "--labels=3"),
    ("profile", "generate", "--labels=3", "--out=x.gif"),
    ("profile", "generate", "--labels=3", "--out=x.png", "--no"),
]


@pytest.mark.parametrize("args", WITHOUT_TORCH, ids=" ".join)
def test_help_and_bad_options_import_nothing_heavy(args: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*args, cwd=tmp_path, program=("-c", LIGHT), env={"PATH": os.defpath})
    stdout, stderr = process.communicate(timeout=HANG)
    asked = args[-1] in ("--help", "--version")
    assert (process.returncode, len(stderr.splitlines())) == ((0, 0) if asked else (2, 1)), stderr
    assert stdout.endswith("heavy: []")


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(*words: str) -> list[str]:
        env = {"_MARFAST_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("marfast", *words))}
        status, stdout, _ = run(cwd=tmp_path, env=env | {"COMP_CWORD": str(len(words))})
        assert status == 0
        return stdout.split()

    assert completed("conv") == ["convert"]
    assert completed("generate", "--num") == ["--num-iter"]


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
    stdout, _ = process.communicate(timeout=HANG)
    os.close(ours)
    assert process.returncode == 0
    assert b"generating" in shown
    assert stdout.startswith("{")
    assert stdout.count("\n") == 1


HELP, WRONG = ("bench", "--help"), ("info", "--model=\udcff\x1b[31mé─.pth")


@pytest.mark.parametrize(
    ("encoding", "args"),
    [
        *(("ascii", ("info",)), ("ascii", HELP), ("ascii", WRONG)),
        *(("cp1252", HELP), ("latin-1", HELP), ("utf-8:strict", WRONG)),  # help needs no torch
    ],
)
def test_characters_that_stdout_lacks_are_escaped(
    encoding: str, args: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {"PYTHONIOENCODING": encoding}
    process = start(*args, cwd=tmp_path, env=environment, errors="replace")
    stdout, stderr = process.communicate(timeout=HANG)
    bad = args[-1].startswith("--model")
    assert (process.returncode, bool(stdout)) == ((2, False) if bad else (0, True)), stderr
    assert len(stderr.splitlines()) == bad
    if bad:
        assert r"\udcff\x1b[31m" in stderr


@pytest.mark.parametrize(
    "args", [("info",), ("info", "--json"), ("--version",), ("generate", "--help")], ids=" ".join
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_is_one_line(args: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(*args, cwd=tmp_path, stdout=full)
        _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 2
    [line] = stderr.splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stderr_keeps_the_status(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("info", "--no", cwd=tmp_path, stderr=full)
        assert process.wait(HANG) == 2


def test_a_closed_stdout_is_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.stdout = None; from marfast.cli import main; main()"
    process = start("info", cwd=tmp_path, program=("-c", code))
    _, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, len(stderr.splitlines())) == (2, 1)
    assert "stdout" in stderr


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    process = start("info", cwd=tmp_path, stdout=ours)
    os.close(ours)
    _, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stderr) == (1, "")


PIECEMEAL = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:  # as Ctrl-C in the middle of an import that takes every error for its own
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException as error:
                raise ImportError(f"{name}: {error!r}")
sys.meta_path.insert(0, Interrupting())
sys.argv[0] = "marfast"
from marfast.cli import main
main()
"""


@pytest.mark.parametrize("module", ["torch", "marfast.ops", "typer", "marfast.cli.profile"])
def test_ctrl_c_while_importing_is_one_line(module: str, tmp_path: Path) -> None:
    program = ("-c", PIECEMEAL.replace("MODULE", repr(module)))
    process = start("info", cwd=tmp_path, program=program)
    stdout, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")


def test_somebody_elses_python_keeps_its_ctrl_c(tmp_path: Path) -> None:
    code, _, _ = PIECEMEAL.replace("MODULE", "'torch'").partition("sys.argv")
    process = start(cwd=tmp_path, program=("-c", code + "import marfast.ops"))
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 1
    assert "torch: KeyboardInterrupt()" in stderr


@pytest.mark.parametrize("parser", ["TyperGroup", "TyperCommand"])
def test_ctrl_c_while_parsing_is_one_line(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(core, parser), "make_context", interrupted)
    result = invoke("info")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_ctrl_c_in_a_command_is_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(verifying, "verify", interrupted)
    monkeypatch.setattr(measuring, "measured", interrupted)
    result = invoke(command, *(["fashion-mnist"] if command == "bench" else []))
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


OUT_OF_MEMORY = [
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("[enforce fail at …] DefaultCPUAllocator: can't allocate memory: you tried to …"),
    RuntimeError("std::bad_alloc"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_too_little_memory_is_one_line(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    for command, name in ((verifying, "verify"), (loading, "load")):
        monkeypatch.setattr(command, name, fail)
    for args in (("verify",), ("generate", "--labels=3", "--out=3.png")):
        result = invoke(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "error: out of memory\n"


def test_a_backend_that_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with marfast.backend("cuda"):
        result = invoke("info", "--explain", "--model=fashion-mnist")
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: MARFAST_BACKEND: backend 'cuda' can't run")


HOSTILE = "\x1b]0;gotcha\x07\u202e\n\x7f"


def test_names_from_files_do_nothing_to_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = json.loads((ASSETS / "config.json").read_text())
    config["classes"] = [f"{HOSTILE}{name}" for name in config["classes"]]
    Path("hostile.json").write_text(json.dumps(config))
    config[HOSTILE] = 1
    Path("key.json").write_text(json.dumps(config))
    weights = load_file(ASSETS / "model.safetensors")
    torch.save({"model": weights, HOSTILE: 1}, "mine.pth")
    torch.save(weights | {HOSTILE: torch.zeros(1)}, f"{HOSTILE}.pth")
    generate = ("generate", "--model=mine.pth")
    outputs = [
        invoke(*generate, "--preset=hostile.json", "--labels=x", "--out=x.png"),
        invoke(*generate, "--preset=key.json", "--labels=1", "--out=x.png"),
        invoke(*generate, f"--preset={HOSTILE}", f"--labels={HOSTILE}", f"--out={HOSTILE}.png"),
        invoke(*generate, "--preset=hostile.json", f"--labels={HOSTILE}", "--out=x.png"),
        invoke(*generate, "--preset=fashion-mnist", "--labels=1", f"--out={HOSTILE}.gif"),
        invoke("info", f"--model={HOSTILE}.pth", "--preset=fashion-mnist"),
        invoke("info", "--model=mine.pth", "--preset=fashion-mnist"),
        invoke("info", "--model=mine.pth", "--preset=fashion-mnist", "--json"),
        invoke("convert", "mine.pth", f"{HOSTILE}.safetensors", "--preset=fashion-mnist"),
        invoke("bench", HOSTILE),
        invoke("profile", HOSTILE),
        invoke(HOSTILE),
        invoke("info", f"--{HOSTILE}"),
    ]
    for result in outputs:
        said = result.stdout + result.stderr
        assert said
        assert all(line.isprintable() for line in said.split("\n")), said
        assert len(result.stderr.splitlines()) == (result.exit_code != 0)
    assert json.loads(outputs[7].stdout)["left_out"]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux tells that the other end is closed
        return b""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Report:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(verifying, "verify", broken)
    with pytest.raises(ZeroDivisionError):
        invoke("verify")


def test_the_samplers_of_options_are_all() -> None:
    choice, *_ = get_args(options.Sampler)  # an option's type, and what is said of it
    names, _ = get_args(choice)  # or none
    assert get_args(names) == SAMPLERS
