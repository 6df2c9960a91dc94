"""`marfast convert`, and `marfast info --model`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import marfast
from marfast.checkpoints import conversion, embedded_models
from tests.cli.program import files, invoke, run

ASSETS = embedded_models()["fashion-mnist"]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_ema": load_file(ASSETS / "model.safetensors"), "step": 3}, "mine.pth")
    return tmp_path


def test_it_reports_what_it_read_and_wrote() -> None:
    result = invoke("convert", "mine.pth", "out/", "--preset=fashion-mnist")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert (lines["file"], lines["entry"]) == ("mine.pth", "model_ema")
    assert lines["preset"] == "fashion-mnist"
    assert lines["parameters"] == "4,397,984 (float16, 8,795,968 bytes)"
    assert lines["written"] == "out/ (float32, 17,591,936 bytes)"
    assert lines["left"] == "out      step"
    few = {"seed": 0, "num_iter": 2, "steps": 4}
    expected = marfast.load("fashion-mnist").generate([3], **few)
    assert torch.equal(marfast.load("out").generate([3], **few), expected)


def test_json_has_the_same() -> None:
    arguments = ("mine.pth", "a.safetensors", "--preset=fashion-mnist", "--dtype=float16", "--json")
    done = json.loads(invoke("convert", *arguments).stdout)
    assert (done["out"], done["dtype"], done["bytes"]) == ("a.safetensors", "float16", 8795968)
    assert done["read"]["left_out"] == ["step"]
    result = invoke("info", "--model=mine.pth", "--preset=fashion-mnist", "--json")
    assert json.loads(result.stdout) == done["read"]
    assert "4,397,984 (float16, 8,795,968 bytes)" in invoke("info", "--model=a.safetensors").stdout


@pytest.mark.parametrize(
    ("arguments", "option", "said"),
    [
        (("convert", "mine.pth", "out"), "--preset", "mine.pth does not say what model"),
        (("convert", "nothing.pth", "out"), "IN", "'nothing.pth' is neither"),
        (("convert", "fashion-mnist", "mine.pth"), "OUT", "allowed are a .safetensors file or a"),
        (("convert", "fashion-mnist", "text/out"), "OUT", "can't write"),
        (("convert", "fashion-mnist", "here"), "OUT", "here exists; force replaces it"),
        (
            ("convert", "fashion-mnist", "a", "--dtype=int8"),
            "--dtype",
            "'int8'; allowed are float32, float16",
        ),
        (
            ("convert", "fashion-mnist", "a", "--classes=text"),
            "--classes",
            "1 names; allowed are 10",
        ),
        (("convert", "fashion-mnist", "a", "--classes=none"), "--classes", "No such file"),
        (("convert", "fashion-mnist", "a", "--weights=model"), "IN", "has no entry 'model'"),
        (("info", "--model=mine.pth"), "--preset", "none given"),
        (("info", "--model=text"), "--model", "unknown kind of file"),
        (("info", "--preset=mar_base"), "--preset", "give --model, too"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], option: str, said: str, workplace: Path
) -> None:
    Path("text").write_text("precious")
    Path("here").mkdir()
    before = files(workplace)
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {option}: ")
    assert said in line
    assert files(workplace) == before


def test_classes_have_the_names_in_a_file() -> None:
    names = [f"kind {i}" for i in range(10)]
    Path("names.txt").write_text("\n".join(names) + "\n")
    result = invoke("convert", "mine.pth", "out", "--preset=fashion-mnist", "--classes=names.txt")
    assert result.exit_code == 0
    made = marfast.load("out").generate(["kind 3"], seed=0, num_iter=2, steps=4)
    expected = marfast.load("fashion-mnist").generate([3], seed=0, num_iter=2, steps=4)
    assert torch.equal(made, expected)


def test_an_interrupted_run_says_so(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "convert", interrupted)
    result = invoke("convert", "fashion-mnist", "out")
    assert (result.exit_code, result.stderr) == (130, "interrupted: nothing was written\n")


def test_the_program_converts(workplace: Path) -> None:
    status, stdout, stderr = run("convert", "fashion-mnist", "out", "--json", cwd=workplace)
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["read"]["preset"] == "fashion-mnist"
