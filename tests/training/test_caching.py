"""A latent cache has the original's layout and its tokenizer's numbers, and is gone on with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marfast.errors import ArgumentError
from marfast.evaluation.work import Place
from marfast.model import KLTokenizer
from marfast.training import cache, open_data
from marfast.training.folders import read_picture
from tests.helpers import assert_as_accurate
from tests.models import LATENT, tiny_autoencoder
from tests.training.runs import QUICK, RARELY, go, preset

CLASSES, EACH = 2, 5


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for c in range(CLASSES):
        folder = tmp_path / "photos" / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(EACH):
            pixels = random.integers(0, 256, (10, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_the_files_are_the_originals(photos: Path, tmp_path: Path) -> None:
    module = tiny_autoencoder()
    made = cache(photos, KLTokenizer(module), tmp_path / "cache", side=8, batch=3)
    assert (made.made, made.there, made.unreadable) == (10, 0, {})
    root = tmp_path / "cache"
    files = sorted(path.relative_to(root) for path in root.rglob("*.npz"))
    assert [str(file) for file in files] == [
        f"class{c}/{i}.png.npz" for c in range(CLASSES) for i in range(EACH)
    ]
    cases = []
    for file in files:
        pixels = read_picture(photos / str(file).removesuffix(".npz"), 8, 3)
        image = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        with np.load(root / file) as stored:
            assert {*stored.files} == {"moments", "moments_flip"}
            for name, given in (("moments", image), ("moments_flip", image.flip(3))):
                assert stored[name].dtype == np.float32
                assert stored[name].shape == (8, 4, 4)
                cases.append((given, torch.from_numpy(stored[name])[None]))
    assert_as_accurate(
        lambda _, stored: stored,
        lambda given, _: module.to(given.dtype).encode(given).parameters,
        cases,
    )


def test_it_goes_on_and_is_shared(photos: Path, tmp_path: Path) -> None:
    tokenizer, out = KLTokenizer(tiny_autoencoder()), tmp_path / "cache"
    first = cache(photos, tokenizer, out, side=8, place=Place(1, 2))
    assert first.made == 5
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    told: list[tuple[int, int]] = []
    rest = cache(photos, tokenizer, out, side=8, progress=lambda *now: told.append(now))
    assert (rest.made, rest.there) == (5, 5)
    assert told[-1] == (10, 10)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_an_unreadable_image_is_left_out_and_named(photos: Path, tmp_path: Path) -> None:
    (photos / "class0" / "3.png").write_bytes(b"no image")
    made = cache(photos, KLTokenizer(tiny_autoencoder()), tmp_path / "cache", side=8, batch=1)
    assert made.made == 9
    assert [*made.unreadable] == [str(photos / "class0" / "3.png")]


def test_a_model_is_trained_on_it(photos: Path, tmp_path: Path) -> None:
    cache(photos, KLTokenizer(tiny_autoencoder()), tmp_path / "cache", side=8)
    data = open_data(tmp_path / "cache", LATENT)
    done = go(
        tmp_path / "run",
        data,
        model=preset(LATENT),
        settings=QUICK.replace(epochs=1, batch=5),
        session=RARELY,
    )
    assert done.finished


def test_and_on_images_with_the_tokenizer(photos: Path, tmp_path: Path) -> None:
    tokenizer = KLTokenizer(tiny_autoencoder())
    data = open_data(photos, LATENT, tokenizer=tokenizer)
    settings = QUICK.replace(epochs=1, batch=5)
    of = {"model": preset(LATENT), "settings": settings, "session": RARELY}
    assert go(tmp_path / "run", data, **of).finished


@pytest.mark.parametrize("side", [0, 1, 9])
def test_a_side_that_has_no_latents(side: int, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="allowed are multiples of 2"):
        cache(photos, KLTokenizer(tiny_autoencoder()), tmp_path / "cache", side=side)
    assert not (tmp_path / "cache").exists()
