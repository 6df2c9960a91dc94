"""`marfast bench`: rows of every contender, results written as they come, wrong kernels refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marfast.bench import head_rows, heads, image_rows
from marfast.bench.floors import Floors
from marfast.bench.measure import DTYPES
from marfast.bench.named_heads import NAMED
from marfast.bench.plots import file_names
from marfast.checkpoints import Preset, Settings
from marfast.cli import measuring
from tests.cli.program import invoke
from tests.models import LATENT, tiny_autoencoder, tiny_weights

QUICK = ("--rounds=2", "--steps=2")


@pytest.fixture(autouse=True)
def limits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Floors({"float32": 1e11, "bfloat16": 2e11}, {1: 1e10}, 1e-6)
    for module in (head_rows, image_rows):
        monkeypatch.setattr(module, "measure", lambda *_: fixed)


@pytest.fixture
def small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "make_head", lambda *_: heads.draw_head(16, 64, 2, 48))


def test_a_head(small_heads: None, needs_native: None, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    result = invoke("bench", "head-b", "--rows=1,4", *QUICK, "--json", f"--out={out}")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    ours = [f"{backend} {dtype}" for dtype in DTYPES for backend in ("cpu", "torch")]
    who = ["eager", "autocast", *ours]
    assert [row["who"] for row in rows] == who * 2
    assert [row["rows"] for row in rows] == [1] * len(who) + [4] * len(who)
    for row in rows:
        p20, p50, p80 = row["ms_a_step_p20_p50_p80"]
        assert 0 < p20 <= p50 <= p80
        assert row["ratio_to"].get(row["who"], 1) == 1
        assert set(row["ratio_to"]) == {"eager", "autocast"}
        assert row["share_of_floor"] == pytest.approx(row["floor_ms_a_step"] / p50, abs=1e-3)
    for row in rows[2:6]:
        if row["who"].endswith("float32"):
            assert row["difference"] < 1e-4
        else:
            assert 1e-4 < row["difference"] < 0.3
    document = json.loads(out.read_text())
    assert document["rows"] == rows
    assert document["machine"]["torch"] == torch.__version__


def test_each_case_says_that_it_was_verified(small_heads: None, needs_native: None) -> None:
    arguments = ("bench", "head-b", "fashion-mnist", "--rows=2", "--num-iter=2", "--timed=1")
    result = invoke(*arguments, "--rounds=1", "--steps=10", "--verify", "--json")
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if ": verified against" in line]
    assert [line.partition(",")[0] for line in lines] == ["head-b", "fashion-mnist"]
    for row in json.loads(result.stdout):
        ours = row["difference_allowed"] is not None
        assert ours == row["who"].startswith(("cpu", "torch", "marfast"))
        if ours:
            assert row["difference"] < row["difference_allowed"]
            assert any(f"{row['who']} off by {row['difference']:.1e} of" in line for line in lines)


def test_a_named_head(needs_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, named in NAMED.items():
        small = named.shape._replace(width=48, depth=4, hidden=64, condition=24)
        monkeypatch.setitem(NAMED, name, named._replace(shape=small))
    names = ",".join(NAMED)
    result = invoke(
        *("bench", "head", f"--spec={names}", "--rows=1,4", "--rounds=1", "--steps=3", "--json")
    )
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert {row["workload"] for row in rows} == {f"head {name}" for name in NAMED}
    assert f"[1/{2 * len(NAMED)}] " in result.stderr
    for row in rows:
        if row["who"].endswith("float32"):
            assert row["difference"] < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("head", "--spec=none"), "'none'; allowed are nextstep, vibevoice"),
        (("head",), "it names the heads of the workload `head`"),
        (("head-b", "--spec=ming"), "it names the heads of the workload `head`"),
    ],
)
def test_a_head_that_nobody_knows(arguments: tuple[str, ...], message: str) -> None:
    result = invoke("bench", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_images_by_phase(needs_native: None, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pytest.importorskip("matplotlib")
    result = invoke(
        *("bench", "fashion-mnist", "--batch=1,2", "--num-iter=3", "--timed=2"),
        *("--rounds=2", "--steps=10"),
        f"--plot={pictures}",
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    ours = next(
        line for line in lines if line.startswith("fashion-mnist, B = 1, K = 3, marfast float32")
    )
    assert all(phase in ours for phase in ("encoder", "decoder", "head", "host"))
    assert ours.count("% of floor") == 3
    assert [line.count("B = 2") for line in lines if "images/s" in line] == [0] * 4 + [1] * 4
    for name in ("fashion-mnist-phases", "fashion-mnist-throughput"):
        assert (pictures / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (pictures / f"{name}.svg").read_bytes()
        assert (pictures / f"{name}.pdf").read_bytes()[:4] == b"%PDF"


def test_an_image_with_its_decoder(needs_native: None, tmp_path: Path) -> None:
    model, vae, preset = (tmp_path / name for name in ("latents.pth", "kl16.ckpt", "latents.json"))
    torch.save({"model_ema": tiny_weights(LATENT)}, model)
    torch.save({"model": tiny_autoencoder().state_dict()}, vae)
    preset.write_text(json.dumps(Preset(LATENT, Settings(num_iter=2, steps=10)).to_dict()))
    arguments = ("bench", str(model), f"--preset={preset}", "--rounds=1", "--timed=1")
    result = invoke(*arguments, f"--vae={vae}", "--verify", "--json")
    assert result.exit_code == 0, result.stderr
    assert "VAE: verified against" in result.stderr
    for row in json.loads(result.stdout):
        assert [*row["phases"]][-1] == "vae"
        assert row["phases"]["vae"] > 0
        assert row["floors"]["vae"] > 0
        assert row["share_of_floor"].keys() == {"encoder", "decoder", "head", "vae"}


def test_quick_measures_less_and_says_what_it_does(small_heads: None, needs_native: None) -> None:
    result = invoke("bench", "head-b", "--quick", "--steps=2", "--json")
    assert result.exit_code == 0, result.stderr
    assert {(row["rows"], row["rounds"]) for row in json.loads(result.stdout)} == {(2, 3), (32, 3)}
    lines = result.stderr.splitlines()
    assert "[1/2] head-b, R = 2: comparing results" in lines
    assert "[2/2] head-b, R = 32: cpu float32, warming up" in lines


def test_a_wrong_kernel_is_refused(
    small_heads: None, needs_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = heads.ours

    def wrong(workload: Any, backend: str, dtype: torch.dtype) -> Any:
        run = right(workload, backend, dtype)
        return lambda: run() + (0.01 if dtype == torch.float32 else 0.0)

    monkeypatch.setattr(heads, "ours", wrong)
    result = invoke("bench", "head-b", "--rows=2", *QUICK)
    assert result.exit_code == 1
    said = "R = 2, cpu float32: off by 0.01, 0.001 is allowed; nothing was timed"
    assert f"error: head-b, {said}" in result.stderr
    assert "ms a step" not in result.stdout


def test_rows_finished_before_a_wrong_result_are_printed(
    small_heads: None, needs_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = heads.ours

    def wrong(workload: Any, *rest: Any) -> Any:
        run = right(workload, *rest)
        return lambda: run() + (1.0 if len(workload.cond) == 4 else 0.0)

    monkeypatch.setattr(heads, "ours", wrong)
    result = invoke("bench", "head-b", "--rows=2,4", *QUICK)
    assert result.exit_code == 1
    assert "error: head-b, R = 4" in result.stderr
    assert result.stdout.count("R = 2") == 6
    assert "R = 4" not in result.stdout


def test_two_steps_of_an_image_in_bfloat16_are_judged_beside_autocast(needs_native: None) -> None:
    arguments = ("--num-iter=3", "--timed=1", "--rounds=1", "--steps=2", "--json")
    result = invoke("bench", "fashion-mnist", *arguments)
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)) == 4


def test_ctrl_c_leaves_the_rows_that_were_finished(
    small_heads: None, needs_native: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = measuring.measure_head

    def interrupted(name: str, net: Any, rows: int, *rest: Any) -> Any:
        if rows == 3:
            raise KeyboardInterrupt
        return measured(name, net, rows, *rest)

    monkeypatch.setattr(measuring, "measure_head", interrupted)
    out = tmp_path / "rows.json"
    result = invoke("bench", "head-b", "--rows=2,3", *QUICK, f"--out={out}")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert {row["rows"] for row in json.loads(out.read_text())["rows"]} == {2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["head-x"], "'head-x'; allowed are head-b"),
        (["head-b", "--rows=2,0"], "'2,0'; allowed are whole numbers from 1"),
        (["head-b", "--rounds=0"], "--rounds"),
        (["fashion-mnist", "--batch=0"], "'0'; allowed are whole numbers from 1"),
        (["image-b", "--num-iter=1,257", "--steps=2"], "num-iter"),
        (["head-b", "--steps=1001"], "--steps: 1001; allowed are 2 to 1000"),
        (["head-b", "fashion-mnist", "--steps=1001"], "--steps: 1001; allowed are 2 to 1000"),
        (["head-b", "x" * 300], "allowed are head-b"),
        (["head-b", "other.pth"], "other.pth: not readable"),
        (["head-b", "wrong.safetensors", "--preset=fashion-mnist"], "wrong.safetensors: misses"),
        (["head-b", "--out="], "''; allowed is the path of a file"),
        (["head-b", "--out=there.json"], "there.json exists; --force replaces it"),
        (["head-b", "--out=link.json"], "there.json exists; --force replaces it"),
        (["head-b", "--out=pipe", "--force"], "pipe is there and no plain file"),
        (["head-b", "--out=."], ". is a folder, not a file"),
        (["head-b", "--out=/proc/x.json"], "can't write to /proc"),
        (["head-b", "--out=" + "x" * 300], "too long"),
        (["head-b", "--plot=there.json"], "there.json is not a folder"),
        (["head-b", "--plot=pictures"], "head-b.png exists; --force replaces it"),
        (["head-b", "--plot=/proc/x"], "can't write to /proc"),
        (["fashion-mnist", "--device=cuda"], "there is no CUDA device here"),
        (["head-b", "--device=tpu"], "'tpu'; allowed are cpu, cuda and cuda:N"),
        (["head-b", "--original=/nowhere"], "no such directory"),
        (["head-b", "--vae=random"], "--vae: random; heads alone make no images"),
        (["image-b", "--vae=nothing"], "--vae: nothing: no such file"),
        (["fashion-mnist", "--vae=random"], "--vae: given for a model of pixels"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And refused before anything is measured."""

    def measure(*_: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(measuring, "measured", measure)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    if any(argument.startswith("--plot") for argument in arguments):
        pytest.importorskip("matplotlib")
    Path("there.json").write_text("precious")
    Path("link.json").symlink_to("there.json")
    os.mkfifo("pipe")
    Path("pictures").mkdir()
    Path("pictures/head-b.png").write_text("precious")
    Path("other.pth").write_text("no weights")
    save_file({"a": torch.zeros(1)}, "wrong.safetensors")
    result = invoke("bench", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Path("there.json").read_text() == "precious"


def test_rows_replace_a_file_only_if_forced(
    small_heads: None, needs_native: None, tmp_path: Path
) -> None:
    out = tmp_path / "rows.json"
    for name in ("rows.json.part", f".marfast-{os.getpid()}.part"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    arguments = ("bench", "head-b", "--rows=1,2", *QUICK, f"--out={out}")
    assert invoke(*arguments).exit_code == 0
    assert {row["rows"] for row in json.loads(out.read_text())["rows"]} == {1, 2}
    out.write_text("precious")
    assert invoke(*arguments).exit_code == 2
    assert out.read_text() == "precious"
    assert invoke(*arguments, "--force").exit_code == 0
    assert {row["rows"] for row in json.loads(out.read_text())["rows"]} == {1, 2}
    assert not (tmp_path / "victim").exists()


def test_pictures_of_a_model_in_a_file_stay_in_their_folder() -> None:
    for name in ("/etc/a\x1b b.pth", "../a.b/c.pth", "..", "/", "x/"):
        for file in file_names(name).values():
            assert Path(file).name == file
            assert file.isprintable()
