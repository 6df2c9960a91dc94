"""`marfast info`."""

import json
import re
from pathlib import Path

import pytest
import torch

import marfast
from marfast.checkpoints import Architecture, Preset, get_preset
from marfast.ops.op import OPS
from marfast.ops.runtime import cpu
from tests.cli.program import invoke
from tests.ops.simulated import Device


def test_json_has_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARFAST_BACKEND", "auto")
    found = json.loads(invoke("info", "--json").stdout)
    assert found["versions"]["marfast"] == marfast.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["devices"]["threads"] == torch.get_num_threads()
    assert found["environment"]["MARFAST_BACKEND"] == "auto"
    rows = {(row["op"], row["backend"]) for row in found["backends"] if row["device"] == "cpu"}
    assert rows == {(name, backend) for name, op in OPS.items() for backend in op.backends}
    assert found["models"]["fashion-mnist"] == vars(marfast.load("fashion-mnist").settings)


def test_the_table_says_what_can_run(needs_native: None) -> None:
    lines = invoke("info").stdout.splitlines()
    extension = cpu.extension()
    assert any(extension.isa() in line and ", ".join(extension.isas()) in line for line in lines)
    assert any(line.split() == ["ddpm_step", "cpu", "cpu", "yes"] for line in lines)
    assert any(line.startswith("model fashion-mnist: num_iter ") for line in lines)


def test_without_the_extension_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_load", lambda: (None, "left out today"))
    found = json.loads(invoke("info", "--json").stdout)
    assert found["native"] == {"available": False, "reason": "left out today"}
    table = re.sub(" +", " ", invoke("info").stdout)
    assert "ddpm_step cpu cpu no left out today" in table
    assert "everything runs in plain PyTorch: left out today" in table


def test_a_bad_variable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARFAST_BACKEND", "abacus")
    result = invoke("info")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: MARFAST_BACKEND: 'abacus'; known are auto," in result.stderr


def test_explain_names_the_backend_of_each_op(needs_native: None) -> None:
    found = json.loads(invoke("info", "--explain", "--model=fashion-mnist", "--json").stdout)
    assert [(row["op"], row["backend"]) for row in found] == [
        ("fused_linear", "cpu"),
        ("attention", "cpu"),
        ("ddpm_sample", "cpu"),
    ]
    blocks = len(marfast.load("fashion-mnist").model.module.encoder_blocks) * 2
    assert found[0]["calls"] == 2 * 4 * blocks
    assert found[2]["shapes"] == ["2×16", "12×16"]  # tokens of the first and the last iteration


def test_explain_says_why_not_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_load", lambda: (None, "left out today"))
    table = invoke("info", "--explain", "--model=fashion-mnist", "--batch=2").stdout
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert "their own code" in lines["transformer blocks"]
    assert lines["ddpm_sample"].endswith("cpu: left out today")
    with marfast.backend("reference"):
        rows = json.loads(invoke("info", "--explain", "--model=fashion-mnist", "--json").stdout)
    assert rows[-1]["backend"] == "reference"


def test_explain_prints_who_was_tried_how_right_and_how_fast(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = Device(monkeypatch, tmp_path)
    for op in OPS.values():
        device.plant(op, torch=2e-3)
    planted = {"cuda": {"seconds": 1e-4, "change": lambda y: 2 * y}, "triton": 1e-3, "torch": 2e-3}
    device.plant(OPS["ddpm_sample"], **planted)
    with pytest.warns(RuntimeWarning, match="'cuda' of ddpm_sample"):
        told = invoke("info", "--explain", "--model=fashion-mnist").stdout
    lines = [line.split(maxsplit=5) for line in told.splitlines() if "ddpm_sample" in line]
    assert lines[0][:2] == ["ddpm_sample", "triton"]
    rows = [line[2:5] for line in lines[-3:]]
    assert rows[0] == ["triton", "0.0e+00", "25"]  # of 25 steps
    assert rows[1] == ["torch", "0.0e+00", "50"]
    assert rows[2][0] == "cuda"
    assert "is off by" in told
    assert "cuda: it was measured" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch=3"], "3 is for --explain"),
        (
            ["--explain", "--model=fashion-mnist", "--batch=0"],
            "'0'; allowed are whole numbers from 1",
        ),
        (["--explain", "--model=fashion-mnist", "--device=tpu"], "allowed are cpu, cuda"),
        (["--explain", "--model=nothing"], "nothing"),
    ],
)
def test_explain_refuses_what_it_cannot_explain(arguments: list[str], said: str) -> None:
    result = invoke("info", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_template_is_a_config_with_every_key(tmp_path: Path) -> None:
    result = invoke("info", "--preset-template")
    path = tmp_path / "config.json"
    path.write_text(result.stdout)
    assert get_preset(path) == Preset(Architecture())
    assert json.loads(result.stdout) == json.loads(json.dumps(Preset(Architecture()).to_dict()))
    assert len(result.stdout.splitlines()) > 30  # to be edited
    of_preset = invoke("info", "--preset-template", "--preset=mar_base").stdout
    assert Preset.from_dict(json.loads(of_preset)) == get_preset("mar_base")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--model=fashion-mnist",), "--preset-template"),
        (("--explain",), "--preset-template"),
        (("image.png",), "--preset-template"),
        (("--batch=2",), "--batch"),
        (("--preset=nothing",), "--preset"),
    ],
)
def test_a_template_goes_with_a_preset_alone(arguments: tuple[str, ...], option: str) -> None:
    result = invoke("info", "--preset-template", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {option}: ")
