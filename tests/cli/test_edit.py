"""`marfast edit`: which pixels stay, which files come out, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

import marfast
from marfast.checkpoints import Preset, Settings
from marfast.generation import load as loading
from marfast.pixels import to_pixels
from tests.cli.program import TINY, files, invoke
from tests.cli.test_bad_input import refused
from tests.cli.test_generate import cut, read
from tests.models import LATENT, tiny_autoencoder, tiny_weights

Array = np.ndarray[Any, Any]


def save(name: str, pixels: Array) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(name)


@pytest.fixture(autouse=True)
def pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Array:
    """Of in.png, in a folder with one of everything that options can wrongly name."""
    monkeypatch.chdir(tmp_path)
    grey = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    save("in.png", grey)
    save("colour.png", np.stack([grey, grey // 2, grey], 2))
    save("grey_in_colour.png", np.stack([grey] * 3, 2))
    save("mask.png", np.tri(28) * 255)
    save("large.png", grey.repeat(2, 0).repeat(2, 1))
    save("wide.png", grey.repeat(2, 1))
    save("transparent.png", np.stack([grey] * 3 + [grey // 2], 2))
    Image.fromarray(grey.astype(np.uint16) * 256).save("deep.png")
    Path("text.png").write_text("not a picture")
    Path("damaged.png").write_bytes(Path("in.png").read_bytes()[:300])
    Path("there.png").write_bytes(b"precious")
    return grey


def edit(*args: str) -> Result:
    return invoke("edit", "--image=in.png", *TINY, *args)


def as_images(pixels: Array, batch: int = 1) -> torch.Tensor:
    return (torch.from_numpy(pixels).float() / 127.5 - 1).expand(batch, 1, -1, -1)


def made_by_the_library(pixels: Array, mask: torch.Tensor, labels: Any, **options: Any) -> Array:
    images = as_images(pixels, len(labels))
    model = marfast.load("fashion-mnist")
    options = {"num_iter": 2, "steps": 4, "seed": 0} | options
    made = model.edit(images, mask.expand(len(labels), -1, -1), labels, **options)
    return to_pixels(made)[..., 0]


def box(x: int, y: int, w: int, h: int) -> torch.Tensor:
    mask = torch.zeros(1, 28, 28)
    mask[:, y : y + h, x : x + w] = 1
    return mask


def test_one_edit_is_a_file_of_the_images_size(pixels: Array) -> None:
    result = edit("--box=0, 14,28,10", "--label=sneaker", "--out=out.png", "--seed=3", "--json")
    assert result.exit_code == 0, result.output
    made = read("out.png")
    mask = box(0, 14, 28, 10)
    assert np.array_equal(made, made_by_the_library(pixels, mask, [7], seed=3)[0])
    outside = mask[0].numpy() == 0
    assert np.array_equal(made[outside], pixels[outside])
    said = json.loads(result.stdout)
    assert (said["images"], Path(said["out"]).name) == (1, "out.png")


def test_several_stand_beside_the_original_and_the_mask(pixels: Array) -> None:
    options = ("--mask=mask.png", "--label=3,none", "--count=2", "--feather=2", "--grow=1")
    assert edit(*options, "--out=grid.png").exit_code == 0
    tiles = cut(read("grid.png"), rows=2, columns=3, scale=4)
    mask = torch.from_numpy(np.tri(28))[None]
    expected = made_by_the_library(pixels, mask, [3, 3, None, None], feather=2, grow=1)
    assert np.array_equal(tiles[0], pixels)
    assert np.array_equal(tiles[1], np.tri(28) * 255)
    assert np.array_equal(tiles[2:], expected)
    assert edit(*options, "--out=each/").exit_code == 0
    each = np.stack([read(path) for path in sorted(Path("each").glob("*.png"))])
    assert np.array_equal(each, expected)
    assert sorted(files(Path("each")))[2] == "0002_none_seed0.png"


def test_outpainting_keeps_the_image_and_shows_it_on_its_canvas(pixels: Array) -> None:
    assert edit("--outpaint=left=9,bottom=3", "--label=bag", "--out=wide.png").exit_code == 2
    assert edit("--outpaint=left=9,bottom=3", "--label=bag", "--out=new.png").exit_code == 0
    wide = read("new.png")
    assert wide.shape == (31, 37)
    assert np.array_equal(wide[:28, 9:], pixels)
    shift = ("--outpaint=left=8, right=-8", "--count=2", "--overlap=5", "--scale=1")
    assert edit(*shift, "--out=grid.png").exit_code == 0
    tiles = cut(read("grid.png"), rows=2, columns=2, scale=1)
    for i, fill in ((0, 255), (2, None), (3, None)):
        assert np.array_equal(tiles[i, :, 8:], pixels[:, :-8])
        assert (tiles[i, :, :8] == fill).all() or fill is None
    assert not tiles[1, :, 8:].any()
    assert tiles[1, :, :8].all()


def test_a_tokenizers_images_are_in_colour(pixels: Array) -> None:
    preset = Preset(LATENT, Settings(num_iter=2, steps=4))
    Path("latent.json").write_text(json.dumps(preset.to_dict()))
    save_file(tiny_weights(LATENT), "latent.safetensors")
    torch.save({"model": tiny_autoencoder().state_dict()}, "vae.ckpt")
    small = np.stack([pixels[:8, :8]] * 3, 2)
    small[0, 0] = 1, 2, 3
    save("small.png", small)
    model = ("--model=latent.safetensors", "--preset=latent.json", "--vae=vae.ckpt")
    result = invoke("edit", "--image=small.png", "--box=4,0,4,8", "--out=out.png", *model)
    assert result.exit_code == 0, result.output
    made = read("out.png")
    assert np.array_equal(made[:, :4], small[:, :4])
    assert not np.array_equal(made[:, 4:], small[:, 4:])


@pytest.mark.parametrize("image", ["grey_in_colour.png", "large.png"])
def test_what_fits_is_read(image: str, pixels: Array) -> None:
    given = ("--image", image, "--box=0,0,1,1", "--out=out.png")
    assert edit(*given, *(["--resize"] if image == "large.png" else [])).exit_code == 0
    with Image.open(image) as file:
        fitting = np.asarray(file.convert("L").resize((28, 28), Image.Resampling.BICUBIC))
    assert np.array_equal(read("out.png")[4:, 4:], fitting[4:, 4:])


def test_a_resized_mask_takes_every_pixel_that_was_marked(pixels: Array) -> None:
    large = np.zeros((280, 280))
    large[255, 33] = 255
    save("dot.png", large)
    assert edit("--mask=dot.png", "--resize", "--out=out.png").exit_code == 0
    changed = np.argwhere(read("out.png") != pixels)
    assert changed.tolist() in ([], [[25, 3]])


BAD = [
    # arguments, the option that is named, what the message says
    (["--image=none.png"], "--image", "none.png: no such file"),
    (["--image=text.png"], "--image", "text.png: not a picture that can be read"),
    (["--image=damaged.png"], "--image", "damaged.png: not a picture that can be read"),
    (["--image=."], "--image", ".: not a picture that can be read"),
    (["--image=large.png"], "--image", "large.png: 56×56 pixels; allowed are 28×28, to which"),
    (["--image=wide.png"], "--image", "wide.png: 56×28 pixels; allowed are 28×28"),
    (["--image=wide.png", "--resize"], "--image", "56×28 pixels; --resize takes squares"),
    (["--image=colour.png"], "--image", "colour.png is in colour; allowed is grey"),
    (["--image=transparent.png"], "--image", "transparent.png: it is transparent"),
    (["--image=deep.png"], "--image", "deep.png: pixels of kind I;16; allowed are 8-bit"),
    (["--box="], "--box", "''; allowed are x,y,w,h, as 0,14,28,14"),
    (["--box=0,0,28"], "--box", "'0,0,28'; allowed are"),
    (["--box=-1,0,2,2"], "--box", "'-1,0,2,2'; allowed are"),
    (["--box=0,0,0,5"], "--box", "0,0,0,5; allowed are boxes inside 28×28 pixels"),
    (["--box=20,0,9,5"], "--box", "20,0,9,5; allowed are boxes inside 28×28 pixels"),
    (["--mask=mask.png"], "--box", "--mask is given, too; allowed is one of"),
    (["--label=10"], "--label", "'10'; allowed are 0 to 9"),
    (["--label="], "--label", "''; allowed are 0 to 9"),
    (["--count=0"], "--count", "'0'; allowed are whole numbers from 1"),
    (["--count=10001"], "--count", "10001 makes 10001 images; allowed are up to 10000"),
    (["--grow=8"], "--grow", "8; allowed are 0 to 7"),
    (["--feather=29"], "--feather", "29; allowed are 0 to 28"),
    (["--overlap=5"], "--overlap", "only --outpaint has windows"),
    (["--num-iter=50"], "--num-iter", "50; allowed are 1 to 49"),
    (["--steps=1"], "--steps", "1; allowed are 2 to 1000"),
    (["--out=there.png"], "--out", "there.png exists; --force replaces it"),
    (["--out=new.gif"], "--out", "new.gif; allowed are"),
    (["--scale=600"], "--scale", "600; allowed is up to 585"),
    (["--model=nothing"], "--model", "'nothing' is neither"),
    (["--vae=kl16.ckpt"], "--vae", "kl16.ckpt; fashion-mnist makes pixels and needs none"),
]
OUTPAINTING = [
    ("--outpaint=", "--outpaint", "''; allowed are left=N, right=N, top=N, bottom=N"),
    ("--outpaint=left", "--outpaint", "'left'; allowed are"),
    ("--outpaint=left=1.5", "--outpaint", "'left=1.5'; allowed are"),
    ("--outpaint=left=8,left=9", "--outpaint", "'left=9'; left is given twice"),
    ("--outpaint=left=100000000", "--image", "become 100000028×28; allowed are 67108864 pixels"),
    ("--outpaint=up=3", "--outpaint", "'up=3'; allowed are"),
    ("--outpaint=left=-28", "--outpaint", "-28; allowed is to take away up to 27"),
    ("--outpaint=left=-1", "--image", "28×28 pixels become 27×28; allowed are 28×28 and more"),
    ("--outpaint=left=99999", "--out", "a picture of 100027 pixels a side; allowed are up to"),
    ("--outpaint=left=8 --overlap=28", "--overlap", "28; allowed are 1 to 27"),
    ("--outpaint=left=8 --feather=1", "--feather", "nothing under the mask"),
    ("--mask=none.png", "--mask", "none.png: no such file"),
    ("--mask=text.png", "--mask", "text.png: not a picture"),
    ("--mask=large.png", "--mask", "large.png: 56×56 pixels; allowed are 28×28"),
    ("", "--mask", "not given; --mask, --box or --outpaint says what to make"),
]


@pytest.mark.parametrize(
    ("arguments", "option", "said"),
    [
        *(
            (["--image=in.png", "--box=0,0,4,4", "--out=new.png", *given], *rest)
            for given, *rest in BAD
        ),
        *(
            (["--image=in.png", "--out=new.png", *given.split()], *rest)
            for given, *rest in OUTPAINTING
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[-2:]),
)
def test_bad_input_is_refused_before_any_work(
    arguments: list[str],
    option: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read before every argument was checked")

    monkeypatch.setattr(loading, "load", load)
    before = files(tmp_path)
    refused(invoke("edit", *arguments), option, said)
    assert files(tmp_path) == before


def test_a_picture_of_too_many_pixels_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(edit("--box=0,0,4,4", "--out=new.png"), "--image", "of that many pixels is not read")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    before = files(tmp_path)
    assert edit("--box=0,0,4,4", "--out=new.png", "--dry-run").exit_code == 0
    assert files(tmp_path) == before
