"""`marfast sample`, `evaluate` and `curve`: what they print and write, and bad input."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marfast.cli.settings import NAMES, parse_set, parse_vary
from marfast.evaluation.run import MANIFEST
from tests.cli.program import files, invoke, start
from tests.limits import HANG

QUICK = ("--set", "num_iter=1", "--set", "steps=2")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images in shards of 4."""
    folder = tmp_path_factory.mktemp("sampled") / "images"
    result = invoke("sample", "--count=23", "--shard=4", *QUICK, f"--out={folder}")
    assert result.exit_code == 0, result.output
    assert "23: 2 of each class, and one more of the first 3" in result.stdout
    assert "made now  23 by 1 process" in result.stdout
    return folder


@pytest.fixture
def folder(sampled: Path) -> Path:
    shutil.copytree(sampled, "images")
    return Path("images")


def refused(result: Any, option: str, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {option}: "), line
    for words in said:
        assert words in line


def test_a_finished_run_is_left_alone(folder: Path) -> None:
    before = files(folder)
    result = invoke("sample", "--count=23", "--shard=4", *QUICK, "--out=images", "--json")
    told = json.loads(result.stdout)
    assert (told["images"], told["made"], told["shards"]) == (23, 0, 6)
    assert files(folder) == before


def test_what_is_missing_is_made_by_whichever_rank(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(folder)
    (folder / "00001.tar").unlink()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = invoke("sample", "--count=23", "--shard=4", *QUICK, "--out=images")
    assert result.exit_code == 0
    assert result.output == ""  # the first rank tells
    assert files(folder) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--seed=1",), "images holds another run: seed 0, not 1"),
        (("--set", "cfg=3"), "cfg 5.0, not 3.0"),
        (("--dtype=bfloat16",), "dtype float32, not bfloat16"),
        (("--format=npz",), "kind tar, not npz"),
        (("--shard=5", "--part=4"), "shard 4, not 5"),
    ],
)
def test_another_runs_folder_is_refused(folder: Path, changed: tuple[str, ...], said: str) -> None:
    before = files(folder)
    same = ("--count=23", "--shard=4", *QUICK, "--out=images")
    refused(invoke("sample", *same, *changed), "--out", said)
    assert files(folder) == before


def test_a_damaged_shard_is_named(folder: Path) -> None:
    (folder / "00001.tar").write_bytes(b"nonsense")
    again = invoke("sample", "--count=23", "--shard=4", *QUICK, "--out=images")
    refused(again, "--out", "images/00001.tar: not readable", "remove it")
    refused(invoke("evaluate", "images"), "DIR", "images/00001.tar: not readable")


def test_a_folder_is_evaluated(folder: Path) -> None:
    result = invoke("evaluate", "images", "--json")
    told = json.loads(result.stdout)
    assert told["protocol"] == "fashion-mnist"
    assert told["run"]["count"] == 23
    assert {*told["figures"]} == {"Fréchet distance", "accuracy", "precision", "recall"}
    assert told["real"]["accuracy"] > 0.9
    shown = invoke("evaluate", "images").stdout
    assert f"{told['figures']['accuracy']['value']:.4g}" in shown
    assert "FID" not in shown

    of_model = ("--model=fashion-mnist", "--count=23", "--shard=4", *QUICK)
    made = json.loads(invoke("evaluate", *of_model, "--json").stdout)
    for name, figure in made["figures"].items():
        assert figure["value"] == pytest.approx(told["figures"][name]["value"]), name
    assert [path.name for path in Path().iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("arguments", "option", "said"),
    [
        (("evaluate",), "DIR", "give one of them"),
        (("evaluate", "x", "--model=fashion-mnist"), "DIR", "give one of them"),
        (("evaluate", "nowhere"), "DIR", "manifest.json: no such file"),
        (("evaluate", "images", "--count=3"), "--count", "it is for --model"),
        (("evaluate", "images", "--seed=0"), "--seed", "it is for --model"),
        (("evaluate", "images", "--protocol=mar"), "--protocol", "the paper's for mar_base"),
        (("evaluate", "images", "--protocol=fid"), "--protocol", "'fid'; allowed are"),
        (("evaluate", "images", "--protocol=inception"), "--inception", "nothing is downloaded"),
        (
            ("evaluate", "images", "--inception=x"),
            "--inception",
            "x; the protocol fashion-mnist has its own",
        ),
        (("evaluate", "images", "--device=tpu"), "--device", "allowed are cpu"),
        (("sample", "--out=new", "--set", "steps"), "--set", "allowed are NAME=VALUE"),
        (("sample", "--out=new", "--set", "size=3"), "--set", "with num_iter, steps,"),
        (("sample", "--out=new", "--set", "num_iter=50"), "--set", "num_iter: 50; allowed are 1"),
        (
            ("sample", "--out=new", "--set", "guidance_interval=0.1"),
            "--set",
            "guidance_interval: '0.1'; allowed are two numbers, as 0.1,0.7",
        ),
        (
            ("sample", "--out=new", "--set", "guidance_interval=0.7,0.1"),
            "--set",
            "the smaller one first",
        ),
        (
            ("curve", "--vary", "guidance_interval=0.1,0.7"),
            "--vary",
            "guidance_interval: '0.1'; allowed are two numbers",
        ),
        (("sample", "--out=new", "--set", "cfg=many"), "--set", "cfg: 'many'; "),
        (
            ("sample", "--out=new", "--set", "cfg=1", "--set", "cfg=2"),
            "--set",
            "cfg is given twice",
        ),
        (("sample", "--out=new", "--count=0"), "--count", "'0'; allowed are whole numbers from 1"),
        (("sample", "--out=new", "--protocol=mar"), "--protocol", "the paper's for mar_base"),
        (("sample", "--out=images/00001.tar"), "--out", "is not a folder"),
        (("sample", "--out="), "--out", "allowed is the path of a folder"),
        (("curve", "--vary", "sampler=ddim,ddim"), "--vary", "ddim is given twice"),
        (("curve", "--vary", "dtype=int8"), "--vary", "dtype int8; allowed are float32"),
        (("curve", "--vary", "num_iter=1,99"), "--vary", "num_iter: 99; allowed are 1 to 49"),
        (("curve", "--vary", "speed=1"), "--vary", "'speed=1'; allowed are NAME=VALUE"),
        (("curve", "--protocol=mar"), "--protocol", "mar says the settings"),
        (("curve", "--out=images/manifest.json"), "--out", "exists; --force replaces it"),
    ],
)
def test_bad_input_is_refused(
    folder: Path, arguments: tuple[str, ...], option: str, said: str, workplace: Path
) -> None:
    before = files(workplace)
    refused(invoke(*arguments), option, said)
    assert files(workplace) == before


def test_a_folder_of_other_things_is_refused(workplace: Path) -> None:
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("precious")
    refused(invoke("sample", "--count=3", *QUICK, "--out=home"), "--out", "thesis.tex in it")
    assert [*files(workplace)] == ["home/thesis.tex"]


def test_settings_are_all_that_the_model_has() -> None:
    assert {"num_iter", "steps", "cfg", "cfg_schedule", "temperature"} <= {*NAMES}


def test_a_guidance_interval_is_set_and_varied() -> None:
    assert parse_set(["guidance_interval=0.1,0.7"]) == {"guidance_interval": (0.1, 0.7)}
    varied = parse_vary(["guidance_interval=0.1/0.7,0/1", "steps=10/15,20"])
    assert varied == {"guidance_interval": [(0.1, 0.7), (0, 1)], "steps": ["10,15", 20]}
    quick = ("--count=4", *QUICK, "--set=guidance_interval=0.1,0.7", "--out=interval")
    assert invoke("sample", *quick).exit_code == 0
    told = json.loads(Path("interval", MANIFEST).read_text())
    assert told["run"]["settings"]["guidance_interval"] == [0.1, 0.7]
    assert invoke("sample", *quick).exit_code == 0  # goes on with it


def test_a_curve_is_measured_and_drawn(workplace: Path) -> None:
    pytest.importorskip("matplotlib")
    result = invoke(
        *("curve", "--vary=steps=2,3", "--set=num_iter=1", "--rounds=3", "--batch=4"),
        *("--out=curve.json", "--plot=curve.png"),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(Path("curve.json").read_text())
    assert (told["protocol"], told["distance"]) == ("fashion-mnist", "Fréchet distance")
    assert [row["images"] for row in told["rows"]] == [12, 12]
    assert any(row["front"] for row in told["rows"])
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    assert "S 2" in result.stdout
    assert "12 images each; protocol fashion-mnist" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the limit's signal is Linux's")
def test_a_file_that_cannot_grow_is_one_line(workplace: Path) -> None:
    """As on a full disk: the second shard is larger than a file may be."""
    program = (
        "-c",
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "import sys; sys.argv[0] = 'marfast'\n"
        "from marfast.cli import main; main()",
    )
    process = start(
        *("sample", "--count=60", "--shard=40", "--out=full", *QUICK),
        cwd=workplace,
        program=program,
    )
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert "File too large" in last
    assert "what is finished stays, and the same command goes on" in last
    assert [*files(Path("full"))] == [MANIFEST]


@pytest.mark.slow
def test_torchrun_needs_nothing_else(folder: Path, workplace: Path) -> None:
    process = start(
        *("--nproc-per-node=2", "-m", "marfast", "sample", "--count=23", "--shard=4", *QUICK),
        "--out=by-two",
        cwd=workplace,
        program=("-m", "torch.distributed.run"),
    )
    stdout, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 0, stderr
    # what was missing when the leader looked: the other may have been first
    assert len(re.findall(r"made now +\d+ by 2 processes", stdout)) == 1
    assert files(Path("by-two")) == files(folder)


def test_npz_shards_are_what_adms_evaluator_reads() -> None:
    result = invoke("sample", "--count=5", "--shard=3", *QUICK, "--format=npz", "--out=npz")
    assert result.exit_code == 0, result.output
    assert sorted(files(Path("npz"))) == ["00000.npz", "00001.npz", "images.npz", MANIFEST]
    parts = [np.load(f"npz/0000{i}.npz") for i in range(2)]
    assert [part["arr_1"].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    with np.load("npz/images.npz") as stored:
        assert stored["arr_0"].dtype == np.uint8
        assert np.array_equal(stored["arr_0"], np.concatenate([part["arr_0"] for part in parts]))
