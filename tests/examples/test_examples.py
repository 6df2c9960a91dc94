"""The programs in examples/ run, at sizes that take no time, and do what they say."""

import ast
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import marfast
from marfast.model import load_tokenizer
from marfast.pixels import to_pixels
from tests.models import LATENT, tiny_autoencoder, tiny_weights, training_checkpoint

EXAMPLES = Path(marfast.__file__).parents[1] / "examples"
RUN_BELOW = {"evaluate_mar.py", "other_head.py", "own_sampler.py", "edit.py", "tour.ipynb"}

ORIGINAL = """
from functools import partial
from marfast.reference.mar import MAR
from tests.models import LATENT

SIZES = {name: getattr(LATENT, name) for part in ("encoder", "decoder") for name in (
    f"{part}_embed_dim", f"{part}_depth", f"{part}_num_heads")}
mar_base = partial(MAR, **SIZES)
"""
"""A stand-in for the checkout's models/mar.py: the reference, small."""


def run(name: str, arguments: str) -> dict[str, Any]:
    """What the program defines, after `main`."""
    example = runpy.run_path(str(EXAMPLES / name), run_name="example")
    example["main"](arguments.split())
    return example


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state that a program may leave behind is left to no other test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    numbers = np.random.get_state()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        yield
    np.random.set_state(numbers)
    for name in ("models", "models.mar"):
        sys.modules.pop(name, None)


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == RUN_BELOW


def test_images_of_the_original_are_those_of_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "mar/models").mkdir(parents=True)
    (tmp_path / "mar/models/mar.py").write_text(ORIGINAL)
    weights = tiny_weights(LATENT)
    names = ("img_size", "vae_stride", "patch_size", "vae_embed_dim", "class_num", "buffer_size")
    options = {name: getattr(LATENT, name) for name in (*names, "diffloss_d", "diffloss_w")}
    stored = training_checkpoint(
        tiny_weights(LATENT, seed=1), weights, model="mar_base", num_sampling_steps="4", **options
    )
    torch.save(stored, "checkpoint-last.pth")
    torch.save({"model": tiny_autoencoder().state_dict()}, "kl16.ckpt")
    run(
        "evaluate_mar.py",
        "--original mar --checkpoint checkpoint-last.pth --vae kl16.ckpt --count 5 --batch 3 "
        "--num-iter 3 --cfg 2 --seed 7 --out images.npz",
    )
    made = np.load("images.npz")
    assert made["arr_0"].shape == (5, 8, 8, 3)
    assert made["arr_1"].tolist() == [0, 1, 2, 3, 4]

    model = LATENT.build(steps="4")
    model.load_state_dict(weights, assign=True)
    np.random.seed(7)
    torch.manual_seed(7)
    with torch.no_grad():
        tokens = model.sample_tokens(3, num_iter=3, cfg=2.0, labels=torch.arange(3))
        expected = to_pixels(load_tokenizer("kl16.ckpt").decode(tokens).clamp(-1, 1))
    assert np.abs(made["arr_0"][:3].astype(int) - expected).max() <= 1


def test_a_head_of_another_model_has_its_own_codes_tokens(
    needs_native: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run("other_head.py", "--width 48 --depth 2 --steps 3 --tokens 5")
    said = capsys.readouterr().out
    assert float(said.split()[2]) < 1e-5
    assert "marfast" in said


def test_an_own_sampler_makes_the_image_of_its_equation(needs_native: None) -> None:
    example = run("own_sampler.py", "--labels 3 7 --num-iter 2 --steps 3 --out heun.png")
    assert Image.open("heun.png").size[0] > 28

    # one token whose noise the head predicts perfectly: any number of steps finds it
    mar = marfast.load("fashion-mnist").model.module
    heun = example["Heun"](mar.diffloss, steps=4)
    heun.clip = False
    x0 = torch.randn(5, 16)
    heun.slope = lambda x, t, sigma, z, cfg: (x - x0) / sigma
    torch.testing.assert_close(heun(torch.zeros(10, 1), cfg=2.0)[:5], x0, rtol=1e-4, atol=1e-4)


def test_editing_writes_its_pictures() -> None:
    run("edit.py", "--label bag --num-iter 1 --steps 2 --out first/")
    assert {path.name for path in Path("first").iterdir()} >= {"lower-half.png", "wide.png"}
    run("edit.py", "--image first/original.png --num-iter 1 --steps 2 --out again/")
    assert Image.open("again/wide.png").size > (28, 28)


def run_cell(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "cell", "exec"), names)
        value = eval(ast.unparse(last), names) if last else None
    return printed.getvalue(), value


def test_the_notebook_shows_what_is_stored_in_it() -> None:
    """Without Jupyter: its cells in order. Pictures may differ by rounding, all else may not."""
    names: dict[str, Any] = {}
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed, value = run_cell("".join(cell["source"]), names)
        streams = [
            "".join(out["text"]) for out in cell["outputs"] if out["output_type"] == "stream"
        ]
        assert printed == "".join(streams)
        for out in cell["outputs"]:
            data = out.get("data", {})
            assert ("image/png" in data) == (data != {} and hasattr(value, "_repr_png_"))
            if "image/png" in data:
                assert Image.open(io.BytesIO(value._repr_png_())).size[0] > 50
            elif data:
                assert repr(value) == "".join(data["text/plain"])
