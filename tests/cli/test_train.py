"""`marfast train` and `marfast cache`: what they print and write, and bad input."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import marfast
from marfast.generation.sequences import generate_sequences
from marfast.training.settings import Session, TrainSettings, meaning
from tests.cli.program import files, invoke, start
from tests.limits import HANG
from tests.models import LATENT, SEQUENCE, TINY, tiny_autoencoder, tiny_weights
from tests.training.runs import config

QUICK = ("--batch=8", "--mul=1", "--threads=1", "--log-steps=2")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model's config and images for it."""
    monkeypatch.chdir(tmp_path)
    config(tmp_path, TINY)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (24, 1, 16, 16)).astype(np.uint8)
    np.savez("images.npz", images=pixels, labels=random.integers(0, 10, 24))
    return tmp_path


def train(*more: str) -> Any:
    return invoke("train", "--model=tiny.json", "--data=images.npz", *QUICK, *more)


def refused(result: Any, option: str, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {option}: "), line
    for words in said:
        assert words in line


def test_a_model_is_trained_and_loaded() -> None:
    result = train("--out=run", "--epochs=2", "--ema=0.9", "--ema=0.5", "--sample-minutes=0")
    assert result.exit_code == 0, result.output
    assert "steps   6, 6 of them now" in result.stdout
    assert "epochs  2.00, all of them" in result.stdout
    assert "step 6 of 6, epoch 2.00: loss " in result.stdout
    assert sorted(path.name for path in Path("run/last").iterdir()) == [
        *("config.json", "ema-0.5.safetensors", "model.safetensors", "raw.safetensors"),
        *("state.json", "state.safetensors"),
    ]
    log = Path("run/log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,loss,lr,norm,images_per_second,seconds,skipped"
    assert [row.split(",")[0] for row in log[1:]] == ["2", "4", "6"]
    sheets = sorted(Path("run/samples").iterdir())
    assert sheets[-1].name == "000000006.png"
    assert Image.open(sheets[-1]).size == (8 * 17 + 1, 10 * 17 + 1)
    for model in ("run/last", "run/last/ema-0.5.safetensors", "run/last/raw.safetensors"):
        assert marfast.load(model).generate([1], seed=0, num_iter=2).shape == (1, 1, 16, 16)


def test_it_goes_on_with_resume_alone() -> None:
    assert train("--out=run", "--epochs=1", "--lr=1e-3", "--resume").exit_code == 0
    told = json.loads(train("--out=run", "--resume", "--epochs=2", "--json").stdout)
    assert (told["step"], told["steps_made"], told["finished"]) == (6, 3, True)
    assert json.loads(Path("run/run.json").read_text())["settings"]["lr"] == 1e-3


def test_it_begins_with_a_model() -> None:
    save_file(tiny_weights(), "weights.safetensors")
    assert (
        train(
            "--out=run",
            "--epochs=1",
            "--lr=1e-12",
            "--start=weights.safetensors",
            "--ema=0",
            "--warmup=0",
        ).exit_code
        == 0
    )
    loaded = marfast.load("run/last").model.module.state_dict()
    for name, value in tiny_weights().items():
        assert (loaded[name] - value).abs().max() < 1e-6


BAD = [
    ((), "--out", "run holds a run; resume goes on with it"),
    (("--resume", "--lr=1"), "--out", "run holds another run: lr 0.0008, not 1.0"),
    (("--resume", "--batch=4"), "--out", "batch 8, not 4"),
    (("--resume", "--parts=2"), "--out", "parts 1, not 2"),
    (("--resume", "--model=other.json"), "--out", "holds another run: diffloss_w 24, not 48"),
    (("--resume", "--data=others.npz"), "--out", "holds another run: data digest"),
    (("--resume", "--schedule=cosine"), "--out", "schedule constant, not cosine"),
    (("--resume", "--start=weights.safetensors"), "--out", "holds another run: start none, not "),
]


@pytest.mark.parametrize(("more", "option", "said"), BAD)
def test_another_runs_folder_is_refused(more: tuple[str, ...], option: str, said: str) -> None:
    assert train("--out=run", "--epochs=1").exit_code == 0
    save_file(tiny_weights(), "weights.safetensors")
    other = json.loads(Path("tiny.json").read_text())
    other["architecture"]["diffloss_w"] = 48
    Path("other.json").write_text(json.dumps(other))
    np.savez("others.npz", images=np.zeros((24, 1, 16, 16), np.uint8))
    before = files(Path("run"))
    refused(train("--out=run", *more), option, said)
    assert files(Path("run")) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.safetensors", "not readable"),
        ("state.safetensors", "not the state of this run"),
        ("state.json", "not readable"),
    ],
)
def test_a_damaged_checkpoint_is_named(name: str, said: str) -> None:
    assert train("--out=run", "--epochs=1").exit_code == 0
    file = Path("run/last") / name
    file.write_bytes(file.read_bytes()[:-30])
    refused(train("--out=run", "--resume", "--epochs=2"), "--out", f"{file}: {said}")


@pytest.mark.parametrize(
    ("more", "option", "said"),
    [
        (("--batch=0",), "--batch", "0; allowed are whole numbers from 1"),
        (("--batch=25",), "--batch", "25; allowed are up to 24"),
        (("--batch=8", "--parts=3"), "--parts", "3; allowed are divisors of batch, 8"),
        (("--lr=0",), "--lr", "0.0; allowed are numbers above 0 to 1000"),
        (("--lr=nan",), "--lr", "nan; allowed are numbers above 0"),
        (("--ema=1",), "--ema", "allowed are different rates from 0 to below 1"),
        (("--ema=0.9", "--ema=0.9"), "--ema", "allowed are different rates"),
        (("--minutes=0",), "--minutes", "0.0; allowed are numbers above 0"),
        (("--workers=0",), "--workers", "0; allowed are whole numbers from 1 to 1024"),
        (("--dtype=float16",), "--dtype", "'float16'; allowed are float32, bfloat16"),
        (("--schedule=linear",), "--schedule", "'linear'; allowed are "),
        (("--model=mar_tiny",), "--model", "'mar_tiny'; allowed are mar_base"),
        (("--data=nowhere",), "--data", "'nowhere' is neither fashion-mnist nor a file or folder"),
        (("--labels=l.npy",), "--labels", "l.npy; an .npz has its own"),
        (("--vae=kl16.ckpt",), "--vae", "given for a model of pixels, which needs none"),
        (("--start=nothing",), "--start", "'nothing' is neither an embedded model"),
        (("--start=fashion-mnist",), "--start", "contradicts"),
        (("--device=tpu",), "--device", "'tpu'; allowed are cpu, cuda and cuda:N"),
        (("--out=tiny.json",), "--out", "is not a folder"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    more: tuple[str, ...], option: str, said: str
) -> None:
    refused(train("--out=run", "--epochs=1", *more), option, said)
    assert not Path("run").exists()


def test_data_must_be_named_where_a_model_has_none() -> None:
    refused(invoke("train", "--model=tiny.json", "--out=run"), "--data", "not given")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit's signal is Linux's")
def test_a_full_disk_leaves_the_last_checkpoint(workplace: Path) -> None:
    """A limit on the size of files stands for it."""
    assert train("--out=run", "--epochs=1").exit_code == 0
    before = files(Path("run/last"))
    program = (
        "-c",
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "import sys; sys.argv[0] = 'marfast'\n"
        "from marfast.cli import main; main()",
    )
    process = start(
        *("train", "--model=tiny.json", "--data=images.npz", *QUICK, "--out=run"),
        *("--resume", "--epochs=2"),
        cwd=workplace,
        program=program,
    )
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert "the last checkpoint stays, and --resume goes on" in stderr.splitlines()[-1]
    assert files(Path("run/last")) == before
    assert train("--out=run", "--resume", "--epochs=2").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be told by")
def test_a_signal_saves_first(workplace: Path) -> None:
    process = start(
        *("train", "--model=tiny.json", "--data=images.npz", *QUICK, "--out=run"),
        *("--epochs=1000000", "--save-minutes=0"),
        cwd=workplace,
    )
    assert process.stdout is not None
    assert process.stdout.readline().endswith("; saved\n")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=HANG)
    assert process.returncode == 130, stderr
    assert stderr.splitlines() == ["interrupted: it is saved, and --resume goes on"]


def test_a_cache_is_made_and_trained_on(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(tiny_autoencoder().state_dict(), "vae.safetensors")
    config(workplace, LATENT)
    random = np.random.default_rng(0)
    for i in range(9):
        file = Path(f"photos/{'ab'[i % 2]}/{i}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 8, 3)).astype(np.uint8)).save(file)
    Path("photos/a/0.png").write_bytes(b"no image")
    made = ("cache", "--data=photos", "--vae=vae.safetensors", "--img-size=8", "--out=latents")
    result = invoke(*made)
    assert result.exit_code == 0, result.output
    assert "made          8" in result.stdout
    assert result.stderr.startswith("left out: photos/a/0.png: cannot identify image file")
    assert json.loads(invoke(*made, "--json").stdout)["there"] == 8
    with monkeypatch.context() as of_another:
        of_another.setenv("RANK", "1")
        of_another.setenv("WORLD_SIZE", "2")
        assert invoke(*made, "--json").stdout == invoke(*made).stdout == ""
    result = invoke(
        *("train", "--model=tiny.json", "--data=latents", "--out=run", "--epochs=1", *QUICK)
    )
    assert result.exit_code == 0, result.output
    refused(invoke(*made[:-1], "--out=photos/a/2.png"), "--out", "is not a folder")
    refused(invoke(*made, "--img-size=9"), "--img-size", "9; allowed are multiples of 2")
    refused(invoke(*made, "--data=empty"), "--data", "empty is not a folder")


def test_sequences_are_trained_on_and_generated_in_python(workplace: Path) -> None:
    config(workplace, SEQUENCE)
    vectors = np.random.default_rng(0).standard_normal((16, 9, 3))
    np.savez("vectors.npz", sequences=vectors, lengths=np.arange(16) % 9 + 1)
    result = train("--data=vectors.npz", "--out=run", "--epochs=1")
    assert result.exit_code == 0, result.output
    made = generate_sequences(marfast.load("run/last"), [0, 0], [2, 5], seed=0)
    assert [sequence.shape for sequence in made] == [(2, 3), (5, 3)]
    shown = invoke("generate", "--model=run/last", "--labels=0", "--out=a.png")
    refused(shown, "--model", "run/last makes sequences of vectors")
    asked = train("--data=vectors.npz", "--out=other", "--sample-minutes=1")
    refused(asked, "--sample-minutes", "this model makes no images")


def test_unreadable_files_are_named_and_counted() -> None:
    random = np.random.default_rng(0)
    for i in range(16):
        file = Path(f"photos/{i}.png")
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16)).astype(np.uint8)).save(file)
    Path("photos/5.png").write_bytes(b"no image")
    result = train("--data=photos", "--out=run", "--epochs=2")
    assert result.exit_code == 0, result.output
    assert "files left out  1 that can't be read" in result.stdout
    assert "left out: photos/5.png: cannot identify image file" in result.stderr


def test_every_field_is_an_option_and_says_what_it_means() -> None:
    shown = invoke("train", "--help").stdout
    for kind in (Session, TrainSettings):
        for name in meaning(kind):
            assert f"--{name.replace('_', '-')} " in shown, name
    assert "[default: 64; mar_base, mar_large, mar_huge: 2048]" in " ".join(shown.split())
