"""Bad input: exit status 2, one line that names option, value and what is allowed, nothing done."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import marfast
from marfast.checkpoints import embedded_models
from marfast.generation import load as loading
from marfast.ops.runtime import cpu
from tests.cli.program import files, generate, invoke
from tests.models import tiny_autoencoder

GOOD = {"--labels": "3", "--out": "new.png"}
ASSETS = embedded_models()["fashion-mnist"]


def tiny_config(**architecture: Any) -> str:
    config = json.loads((ASSETS / "config.json").read_text())
    config["architecture"] |= architecture
    return json.dumps(config)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with one of everything that options can wrongly name."""
    monkeypatch.chdir(tmp_path)
    Path("there.png").write_bytes(b"precious")
    Path("folder").mkdir()
    Path("folder/0000_dress_seed0.png").write_bytes(b"precious")
    Path("text").write_text("not an image")
    Path("text.json").write_text("not JSON")
    Path("two_channels.json").write_text(tiny_config(vae_embed_dim=2))
    Path("wider.json").write_text(tiny_config(encoder_embed_dim=96))
    Path("heads.json").write_text(tiny_config(encoder_num_heads=5))
    Path("wrong.json").write_text(tiny_config(img_size=0))
    save_file({"a": torch.zeros(1)}, "other.safetensors")
    Path("cut.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:-1])
    shutil.copy(ASSETS / "model.safetensors", "weights.safetensors")
    Path("empty").mkdir()
    return tmp_path


def refused(result: Any, option: str, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {option}: ")
    for words in said:
        assert words in line


ARGUMENTS = [
    # option, value, what the message says; values are read before weights are
    ("--dtype", "int8", "'int8'; allowed are bfloat16, float16"),
    ("--labels", "10", "'10'; allowed are 0 to 9, ranges such as 0-9, none, t-shirt, trouser"),
    ("--labels", "sneakers", "'sneakers'; allowed are"),
    ("--labels", "-1", "'-1'; allowed are"),
    ("--labels", "9-3", "'9-3'; allowed are"),
    ("--labels", "0-10", "'0-10'; allowed are"),
    ("--labels", "0-999999999", "'0-999999999'; allowed are"),
    ("--labels", "3,,4", "''; allowed are"),
    ("--labels", "", "''; allowed are"),
    ("--labels", "٣", "'٣'; allowed are"),
    ("--out", "", "''; allowed are the path of"),
    ("--out", "new.gif", "new.gif; allowed are .png, .jpg, .jpeg, .webp, .npz, or a folder"),
    ("--out", "v1.0", "v1.0; allowed are"),
    ("--out", "there.png", "there.png exists; --force replaces it"),
    ("--out", "there.png/", "there.png/ is a file, not a folder"),
    ("--out", "text", "text is a file, not a folder"),
    ("--out", "text/new.png", "text is not a folder"),
    ("--out", "text/deep/folder/", "text is not a folder"),
    ("--out", "folder", "0000_dress_seed0.png exists; --force replaces it"),
    ("--out", "x" * 300 + ".png", "File name too long"),
    ("--model", "nothing", "'nothing' is neither an embedded model (fashion-mnist) nor a file"),
    ("--model", "empty", "model.safetensors: no such file; .safetensors there: none"),
    (
        "--preset",
        "mar_tiny",
        "'mar_tiny'; allowed are mar_base, mar_large, mar_huge,",
    ),
    ("--preset", "text.json", "text.json: not a JSON file"),
    ("--preset", "wrong.json", "wrong.json: architecture.img_size: 0"),
    ("--preset", "empty", "'empty'; allowed are"),
    ("--weights", "ema", "'ema'; allowed are model_ema, model"),
    ("--vae", "nothing.ckpt", "nothing.ckpt; fashion-mnist makes pixels and needs none"),
    ("--per-label", "0", "'0'; allowed are whole numbers from 1"),
    ("--per-label", "2.5", "'2.5'; allowed are whole numbers from 1"),
    ("--per-label", "many", "'many'; allowed are whole numbers from 1"),
    ("--per-label", "100001", "100001 images; allowed are up to 100000"),
    ("--num-iter", "0", "0; allowed are whole numbers from 1"),
    ("--num-iter", "50", "50; allowed are 1 to 49"),
    ("--num-iter", "9" * 5000, "allowed are whole numbers"),
    ("--steps", "1", "1; allowed are 2 to 1000"),
    ("--steps", "1001", "1001; allowed are"),
    ("--steps", "-5", "'-5'; allowed are"),
    ("--steps", "-5,10", "'-5,10'; allowed are"),
    ("--steps", "0,3", "'0,3'; allowed are"),
    ("--steps", "few", "'few'; allowed are 2 to 1000, or a respacing"),
    ("--steps", "", "''; allowed are"),
    ("--steps", "9" * 5000, "allowed are"),
    ("--cfg", "-1", "-1.0; allowed are numbers from 0 to 10000"),
    ("--cfg", "nan", "nan; allowed are numbers from 0 to 10000"),
    ("--cfg", "inf", "inf; allowed are numbers from 0 to 10000"),
    ("--cfg", "strong", "'strong'; allowed are numbers"),
    ("--cfg-schedule", "cosine", "'cosine'; allowed are linear, constant"),
    ("--temperature", "-0.1", "-0.1; allowed are numbers from 0 to 10000"),
    ("--temperature", "1e300", "1e+300; allowed are numbers from 0 to 10000"),
    ("--cfg", "1e5", "100000.0; allowed are numbers from 0 to 10000"),
    ("--temperature", "hot", "'hot'; allowed are numbers"),
    ("--sampler", "euler", "'euler'; allowed are ddpm, ddim, dpm++2m, dpm++2m-sde"),
    ("--eta", "1.5", "1.5; allowed are numbers from 0 to 1"),
    ("--eta", "-0.1", "-0.1; allowed are numbers from 0 to 1"),
    ("--eta", "nan", "nan; allowed are numbers from 0 to 1"),
    ("--eta", "0.5", "0.5; allowed is 0 where the sampler is 'ddpm'"),
    ("--steps", "50-1", "'50-1'; allowed are 2 to 1000"),
    ("--steps", "2000-5", "'2000-5'; allowed are 2 to 1000"),
    ("--steps", "50-5-2", "'50-5-2'; allowed are 2 to 1000"),
    ("--guidance-interval", "0.5", "'0.5'; allowed are two numbers, as 0.1,0.7"),
    ("--guidance-interval", "low,high", "'low,high'; allowed are two numbers"),
    ("--guidance-interval", "0.7,0.1", "(0.7, 0.1); allowed are two numbers from 0 to 1, the sm"),
    ("--guidance-interval", "0.1,1.5", "(0.1, 1.5); allowed are two numbers from 0 to 1"),
    ("--seed", "-1", "'-1'; allowed are whole numbers from 0 to 4294967295"),
    ("--seed", "4294967296", "'4294967296'; allowed are whole numbers from 0 to 4294967295"),
    ("--seed", "now", "'now'; allowed are whole numbers from 0"),
    ("--part", "0", "'0'; allowed are whole numbers from 1"),
    ("--threads", "0", "'0'; allowed are whole numbers from 1 to 1024"),
    ("--threads", "1025", "'1025'; allowed are whole numbers from 1 to 1024"),
    ("--threads", "all", "'all'; allowed are whole numbers"),
    ("--scale", "0", "'0'; allowed are whole numbers from 1"),
    ("--scale", "10000", "10000; allowed is up to"),
]


@pytest.mark.parametrize(
    ("option", "value", "said"), ARGUMENTS, ids=[f"{o} {v[:12]}" for o, v, _ in ARGUMENTS]
)
def test_an_argument_is_refused_before_any_work(
    option: str, value: str, said: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read before every argument was checked")

    monkeypatch.setattr(loading, "load", load)
    before = files(workplace)
    arguments = [f"{name}={given}" for name, given in (GOOD | {option: value}).items()]
    refused(invoke("generate", *arguments), option, said)
    assert files(workplace) == before


@pytest.mark.parametrize(
    ("model", "preset", "option", "said"),
    [
        ("weights.safetensors", None, "--preset", "weights.safetensors does not say"),
        ("weights.safetensors", "mar_base", "--model", "makes latents; --vae names the tokenizer"),
        ("weights.safetensors", "two_channels.json", "--model", "2 channels; allowed are 1 or 3"),
        (
            "weights.safetensors",
            "heads.json",
            "--preset",
            "num_heads: 5; allowed are divisors",
        ),
        ("weights.safetensors", "wider.json", "--model", "weights.safetensors: "),
        ("other.safetensors", "fashion-mnist", "--model", "other.safetensors: misses"),
        ("cut.safetensors", "fashion-mnist", "--model", "cut.safetensors: not readable"),
        ("text.json", "fashion-mnist", "--model", "text.json: unknown kind of file"),
        ("empty", "fashion-mnist", "--model", "model.safetensors: no such file"),
    ],
)
def test_a_model_is_refused(
    model: str, preset: str | None, option: str, said: str, workplace: Path
) -> None:
    before = files(workplace)
    named = ["--preset", preset] if preset else []
    refused(generate("--labels=3", "--out=new.png", "--model", model, *named), option, said)
    assert files(workplace) == before


@pytest.mark.parametrize(
    ("preset", "vae", "said"),
    [
        ("latent.json", "nothing.ckpt", "nothing.ckpt: no such file"),
        ("latent.json", "text", "text: unknown kind of file"),
        ("latent.json", "other.safetensors", "other.safetensors: misses decoder.conv_in.bias"),
        ("latent.json", "cut.safetensors", "cut.safetensors: not readable"),
        ("stride.json", "vae.safetensors", "its stride is 2; this model's latents need 4"),
        ("channels.json", "vae.safetensors", "its channels is 4; this model's latents need 16"),
    ],
)
def test_a_tokenizer_is_refused_before_weights_are_read(
    preset: str, vae: str, said: str, workplace: Path
) -> None:
    for name, latents in (("latent", (2, 4)), ("stride", (4, 4)), ("channels", (2, 16))):
        sizes = dict(zip(("vae_stride", "vae_embed_dim"), latents, strict=True))
        Path(f"{name}.json").write_text(tiny_config(patch_size=1, **sizes))
    save_file(tiny_autoencoder().state_dict(), "vae.safetensors")
    before = files(workplace)
    arguments = ("--model=other.safetensors", f"--preset={preset}", f"--vae={vae}")
    refused(generate("--labels=3", "--out=new.png", *arguments), "--vae", said)
    assert files(workplace) == before


def test_an_entry_that_is_not_there_is_refused(workplace: Path) -> None:
    result = generate("--labels=3", "--out=new.png", "--weights=model")
    refused(result, "--model", "has no entry 'model'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "--labels", "3"], "--out: not given; generate needs it"),
        (["generate", "--out", "new.png"], "--labels: not given; generate needs it"),
        (["generate", "--labels", "3", "--out", "new.png", "more"], "more: generate takes no more"),
        (
            ["generate", "--labels", "3", "--out", "new.png", "--colour"],
            "--colour: generate has no such",
        ),
        (["generate", "--labels", "3", "--out"], "--out: no value; it takes one"),
        (["generate", "--labels=3", "--out=new.png", "--force=1"], "--force: it takes no value"),
        (["generate", "--labels=3", "--out=new.png", "--colums=2"], "; similar are --columns"),
        (["bench"], "WORKLOAD...: not given; bench needs it"),
        (["info", "--all"], "--all: info has no such option"),
        (["verify", "--original"], "--original"),
        (["generat"], "'generat' is no command; allowed are generate, edit, sample"),
        (["--colour"], "--colour"),
        ([], "no command; allowed are generate, edit, sample"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], said: str, workplace: Path) -> None:
    before = files(workplace)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert files(workplace) == before


def test_resume_and_force_contradict_each_other(workplace: Path) -> None:
    before = files(workplace)
    refused(generate("--labels=3", "--out=folder", "--resume", "--force"), "--resume", "--force")
    assert files(workplace) == before


def test_a_folder_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    refused(
        generate("--labels=3", "--out=a/b/new.png"), "--out", "a/b/new.png", "Permission denied"
    )
    assert not Path("a").exists()


def test_a_grid_too_large_for_a_picture_is_refused(workplace: Path) -> None:
    result = generate("--labels=0-1", "--per-label=600", "--out=new.png")
    refused(result, "--out", "pixels a side; allowed are up to 16383")


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("MARFAST_BACKEND", "'abacus'; known are auto, cuda, triton, cpu, torch, reference"),
        ("MARFAST_CPU_ISA", "'abacus' is unknown; usable: "),
    ],
)
def test_an_environment_variable_is_refused(
    variable: str,
    said: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    needs_native: None,
) -> None:
    before = files(workplace)
    monkeypatch.setenv(variable, "abacus")
    cpu._load.cache_clear()  # read once in a process
    refused(generate("--labels=3", "--out=new.png"), variable, said)
    assert files(workplace) == before


def test_a_forced_backend_that_cannot_run_is_refused(workplace: Path) -> None:
    before = files(workplace)
    with marfast.backend("cuda"):
        refused(generate("--labels=3", "--out=new.png"), "MARFAST_BACKEND", "'cuda' can't run")
    assert files(workplace) == before
