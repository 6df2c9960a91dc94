"""What files say of how they were made: told, made again, and what `--resume` goes by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import marfast
from marfast import image_files
from marfast.checkpoints import Preset, Settings, embedded_models
from marfast.generation.provenance import listed, repeated
from tests.cli.program import generate, invoke
from tests.cli.test_bad_input import refused
from tests.cli.test_generate import expected, read
from tests.models import LATENT, tiny_autoencoder, tiny_weights


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke("info", path, "--json").stdout)
    return found


OPTIONS = ("--cfg=3", "--sampler=ddim", "--eta=0.5", "--guidance-interval=0.1,0.9", "--part=2")


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg", "a.npz"])
def test_a_file_is_made_again_byte_for_byte(name: str) -> None:
    given = ("--labels=sneaker,none", "--per-label=2", "--seed=5", "--dtype=bfloat16", *OPTIONS)
    assert generate(*given, f"--out={name}").exit_code == 0
    said = told(name)
    assert (said["labels"], said["per_label"], said["seed"]) == ("7,none", 2, 5)
    assert (said["settings"]["sampler"], said["settings"]["num_iter"]) == ("ddim", 2)
    assert (said["dtype"], said["marfast"]) == ("bfloat16", marfast.__version__)
    assert (said["torch"], said["backends"]["attention"]) == (torch.__version__, ["cpu"])
    result = invoke("generate", f"--like={name}", f"--out=again-{name}")
    assert (result.exit_code, result.stderr) == (0, "")
    assert Path(name).read_bytes() == Path(f"again-{name}").read_bytes()


def test_one_of_a_folder_is_made_again_by_itself() -> None:
    generate("--labels=0-9", "--per-label=2", "--seed=3", "--out=new/", "--part=8")
    file = Path("new/0011_sandal_seed3.png")
    assert invoke("generate", f"--like={file}", "--out=one.png").exit_code == 0
    assert file.read_bytes() == Path("one.png").read_bytes()
    assert invoke("generate", "--like=new", "--out=new2/").exit_code == 0
    assert (Path("new2") / file.name).read_bytes() == file.read_bytes()


def test_what_is_given_goes_before_what_is_liked() -> None:
    generate("--labels=3,4", "--seed=3", "--out=a.png")
    assert invoke("generate", "--like=a.png", "--seed=4", "--labels=5", "--out=b/").exit_code == 2
    done = invoke("generate", "--like=a.png", "--seed=4", "--labels=5", "--count=1", "--out=b/")
    assert done.exit_code == 0
    assert np.array_equal(read("b/0000_sandal_seed4.png"), expected([5], seed=4)[0])


def test_other_weights_are_refused_unless_they_are_named() -> None:
    generate("--labels=3", "--out=a.png")
    said = told("a.png") | {"weights": "0" * 64}
    image_files.write_image(read("a.png")[..., None], Path("b.png"), said)
    refused(invoke("generate", "--like=b.png", "--out=c.png"), "--like", "weights 000000000000…")
    model = embedded_models()["fashion-mnist"]
    result = invoke("generate", "--like=b.png", f"--model={model}", "--out=c.png")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: b.png: it was made with weights 000000000000…, not")


def test_a_tokenizer_is_named_again() -> None:
    torch.save({"model_ema": tiny_weights(LATENT)}, "latents.pth")
    Path("latents.json").write_text(json.dumps(Preset(LATENT, Settings(num_iter=1)).to_dict()))
    torch.save({"model": tiny_autoencoder().state_dict()}, "kl16.ckpt")
    files = ("--preset=latents.json", "--vae=kl16.ckpt")
    made = invoke(
        "generate", "--model=latents.pth", "--labels=0", "--steps=2", *files, "--out=a.png"
    )
    assert made.exit_code == 0, made.stderr
    result = invoke("generate", "--like=a.png", "--out=b.png")
    refused(result, "--vae", "a.png was made with a tokenizer; name its file again, and --preset")
    again = invoke("generate", "--like=a.png", *files, "--out=b.png")
    assert (again.exit_code, again.stderr) == (0, "")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_another_machine_is_told_of() -> None:
    generate("--labels=3", "--out=a.png")
    said = told("a.png") | {"torch": "1.0"}
    image_files.write_image(read("a.png")[..., None], Path("b.png"), said)
    result = invoke("generate", "--like=b.png", "--out=c.png")
    assert result.exit_code == 0
    assert f"made with torch 1.0, not {torch.__version__}: pixels may differ" in result.stderr


def test_an_edit_says_so_and_generate_cannot_make_it() -> None:
    generate("--labels=3", "--out=a.png")
    given = ("--image=a.png", "--box=0,0,9,9", "--num-iter=2", "--steps=4")
    assert invoke("edit", *given, "--out=b.png").exit_code == 0
    assert told("b.png")["command"] == "edit"
    refused(invoke("generate", "--like=b.png", "--out=c.png"), "--like", "made by edit")


LIKE = {
    **{"num-iter": "--num-iter=2", "steps": "--steps=4"},
    **{"labels": "--labels=3,4", "out": "--out=new/"},
}


@pytest.mark.parametrize(
    "option", ["--sampler=ddim", "--steps=5", "--cfg=3", "--dtype=bfloat16", "--scale=2"]
)
def test_resuming_with_other_settings_is_refused(option: str) -> None:
    generate("--labels=3,4", "--out=new/")
    Path("new/0001_coat_seed0.png").unlink()
    name = option.partition("=")[0][2:]
    result = invoke("generate", *{**LIKE, name: option}.values(), "--resume")
    refused(result, "--resume", "0000_dress_seed0.png is of another run", name)
    assert not Path("new/0001_coat_seed0.png").exists()
    assert invoke("generate", *LIKE.values(), "--part=1", "--resume").exit_code == 0


def test_resuming_what_says_nothing_is_refused() -> None:
    Path("new").mkdir()
    Image.new("L", (28, 28)).save("new/0000_dress_seed0.png")
    result = generate("--labels=3,4", "--out=new/", "--resume")
    refused(result, "--resume", "does not say how it was made; what made it is not known")


def test_a_settings_file_of_others_is_left_alone() -> None:
    Path("new").mkdir()
    Path("new/settings.json").write_text("{}")
    refused(generate("--labels=3", "--out=new/"), "--out", "settings.json tells of no runs")
    assert Path("new/settings.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("no.png", None),
        ("text.png", b"text"),
        ("text.npz", b"text"),
        ("text.json", b"[" * 100_000),
        ("folder.json", b'{"runs": []}'),
        ("wrong.json", b'{"runs": [{"seed": -1}]}'),
        ("other.json", b'{"runs": [{"nothing": 1}]}'),
    ],
)
def test_what_says_nothing_is_one_line(name: str, contents: bytes | None) -> None:
    if contents is not None:
        Path(name).write_bytes(contents)
    refused(invoke("info", name), "FILE", name if contents is None else "")
    refused(invoke("generate", f"--like={name}", "--out=c.png"), "--like")


def test_some_of_a_batch_are_the_same_as_in_the_whole() -> None:
    whole = expected(list(range(10)), part=4)
    generate("--labels=0-9", "--part=4", "--first=3", "--count=4", "--out=new/")
    made = [read(path) for path in sorted(Path("new").glob("*.png"))]
    assert np.array_equal(np.stack(made), whole[3:7])
    assert [path.name[:4] for path in sorted(Path("new").glob("*.png"))] == [
        *("0003", "0004", "0005", "0006")
    ]


def test_a_seed_for_each_image() -> None:
    generate("--labels=3,4", "--seed=8", "--seed-per-image", "--out=new/")
    assert np.array_equal(read("new/0001_coat_seed9.png"), expected([4], seed=9)[0])
    assert invoke("generate", "--like=new/0001_coat_seed9.png", "--out=b.png").exit_code == 0
    assert np.array_equal(read("b.png"), read("new/0001_coat_seed9.png"))


def test_arrays_are_as_evaluators_read_them() -> None:
    generate("--labels=3,none,4", "--out=a.npz")
    with np.load("a.npz") as stored:
        assert stored["arr_0"].dtype == np.uint8
        assert np.array_equal(stored["arr_0"][..., 0], expected([3, None, 4]))
        assert stored["arr_1"].tolist() == [3, -1, 4]


def test_labels_as_text() -> None:
    assert listed([0, 1, 2, None, 5, 4, 5]) == "0-2,none,5,4-5"
    assert repeated([3, 3, 4, 4]) == ("3-4", 2)
    assert repeated([3, 3, 3]) == ("3", 3)
    assert repeated([3, 3, 4]) == ("3,3-4", 1)
    assert repeated([None, None, 0, 0]) == ("none,0", 2)
