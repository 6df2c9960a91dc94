"""Data sets: what they read, and one clear error for each that can't be trained on."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from marfast.errors import ArgumentError
from marfast.model.autoencoder import SCALE
from marfast.training import open_data
from marfast.training.batches import Batches
from marfast.training.data import Data, Unreadable
from marfast.training.folders import centre_crop
from tests.models import LATENT, SEQUENCE, TINY
from tests.training.runs import QUICK


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder: str = "photos", classes: int = 3, each: int = 4) -> Path:
    """Grey images, all pixels of one the same number."""
    for c in range(classes):
        for i in range(each):
            file = Path(folder) / f"class{c}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 16), 10 * c + i).save(file)
    return Path(folder)


def moments(value: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((8, 4, 4), value, np.float32)


def latents(folder: str = "cache", classes: int = 2, each: int = 3) -> Path:
    for c in range(classes):
        for i in range(each):
            file = Path(folder) / f"class{c}" / f"{i}.JPEG.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, moments=moments(c), moments_flip=moments(-c))
    return Path(folder)


def test_a_folder_of_images() -> None:
    data = open_data(photos(), TINY)
    assert (len(data), data.facts.kind) == (12, "images")
    assert data.facts.classes == ("class0", "class1", "class2")
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    image = data.read(9, flip=False)
    assert image.shape == (1, 16, 16)
    assert image.dtype == np.float32
    assert image == pytest.approx(21 / 127.5 - 1)


def test_a_folder_without_classes_has_one() -> None:
    folder = photos() / "class1"
    data = open_data(folder, TINY)
    assert data.labels.tolist() == [0] * 4
    assert data.facts.classes == ()


def test_images_are_cut_as_adm_cuts_them() -> None:
    pixels = np.arange(70 * 100, dtype=np.uint32).reshape(70, 100) % 251
    image = Image.fromarray(pixels.astype(np.uint8))
    half = image.resize((50, 35), Image.Resampling.BOX)
    quarter = half.resize((25, 17), Image.Resampling.BOX)
    scaled = quarter.resize((24, 16), Image.Resampling.BICUBIC)  # 25 · 16/17 is 23.5
    expected = scaled.crop((4, 0, 20, 16))
    assert np.array_equal(np.asarray(centre_crop(image, 16)), np.asarray(expected))


def test_a_mirrored_image() -> None:
    Path("one").mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save("one/a.png")
    data = open_data("one", TINY)
    assert np.array_equal(data.read(0, True), data.read(0, False)[..., ::-1])


def test_a_latent_cache() -> None:
    data = open_data(latents(), LATENT)
    assert (len(data), data.facts.kind) == (6, "latents")
    assert (data.read(5, False) == 1).all()
    assert (data.read(5, True) == -1).all()
    given = torch.from_numpy(np.stack([data.read(i, False) for i in (0, 5)]))
    torch.manual_seed(0)
    x = data.finish(given)
    torch.manual_seed(0)
    mean, log_variance = given.chunk(2, 1)
    noise = torch.randn(mean.shape)
    assert torch.equal(x, (mean + torch.exp(0.5 * log_variance) * noise) * SCALE)


def test_arrays_of_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)).astype(np.uint8)
    floats = (pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    labels = np.array([3, 1, 0, 9, 2])
    np.savez("adm.npz", arr_0=pixels, arr_1=labels)
    np.savez("ours.npz", images=floats, labels=labels)
    np.save("images.npy", floats)
    np.save("labels.npy", labels)
    found: list[Data] = [
        open_data("adm.npz", TINY),
        open_data("ours.npz", TINY),
        open_data("images.npy", TINY, labels="labels.npy"),
    ]
    for data in found:
        assert data.labels.tolist() == labels.tolist()
        assert np.allclose(data.read(3, False), floats[3], atol=1e-6)
    assert open_data("images.npy", TINY).labels.tolist() == [0] * 5


def test_arrays_of_sequences() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 7, 3))
    vectors[1, 2:] = np.nan  # behind its end
    np.savez("a.npz", sequences=vectors, lengths=[7, 2, 1, 5])
    data = open_data("a.npz", SEQUENCE)
    assert data.lengths is not None
    assert data.lengths.tolist() == [7, 2, 1, 5]
    item = data.read(1, True)
    assert item.shape == (3, 1, 9)
    assert np.allclose(item[:, 0, :2].T, vectors[1, :2])
    assert not item[..., 2:].any()
    np.save("b.npy", vectors[:1])
    assert open_data("b.npy", SEQUENCE).labels.tolist() == [0]


def test_fashion_mnists_own_files() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    for name, values in (
        ("train-images-idx3-ubyte.gz", pixels),
        ("train-labels-idx1-ubyte.gz", np.array([0, 9, 4], np.uint8)),
    ):
        header = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
        Path(name).write_bytes(gzip.compress(header + values.tobytes()))
    from marfast.checkpoints import get_preset

    data = open_data(".", get_preset("fashion-mnist").architecture)
    assert data.labels.tolist() == [0, 9, 4]
    assert data.facts.classes[9] == "ankle boot"
    assert np.allclose(data.read(1, False)[0], pixels[1] / 127.5 - 1, atol=1e-6)


def make_bad() -> None:
    """One of everything that is no data set."""
    Path("empty").mkdir()
    Path("text.txt").write_text("no data")
    Path("broken.npz").write_bytes(b"PK nonsense")
    mixed = photos("mixed")
    Image.new("L", (4, 4)).save(mixed / "loose.png")
    photos("many", classes=11, each=1)
    latents()
    np.savez("nothing.npz")
    np.savez("none.npz", images=np.zeros((0, 1, 16, 16), np.uint8))
    np.savez("other.npz", images=np.zeros((2, 1, 8, 8), np.uint8))
    np.savez("objects.npz", images=np.array([{}, {}], dtype=object))
    np.savez("wide.npz", images=np.full((2, 1, 16, 16), 3.0))
    holes = np.zeros((5, 1, 16, 16), np.float32)
    holes[3, 0, 2, 2] = np.nan
    np.savez("nan.npz", images=holes)
    np.savez("whole.npz", images=np.zeros((2, 1, 16, 16), np.int32))
    fine = np.zeros((3, 1, 16, 16), np.uint8)
    np.savez("labels.npz", images=fine, labels=[0, 10, -1])
    np.savez("fewer.npz", images=fine, labels=[0])
    np.savez("floats.npz", images=fine, labels=[0.0, 1.0, 2.0])
    np.savez("vectors.npz", sequences=np.zeros((3, 9, 3)), lengths=[9, 10, 0])
    np.savez("gaps.npz", sequences=np.full((2, 9, 3), np.inf))
    np.savez("flat.npz", sequences=np.zeros((3, 9, 4)))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "data: 'nowhere' is neither fashion-mnist nor a file or folder"),
        ("empty", "data: empty has no file of .jpg, "),
        ("text.txt", "data: text.txt; allowed files are .npz and .npy"),
        ("broken.npz", "data: broken.npz: not readable as .npz"),
        ("mixed", "data: mixed has loose.png beside folders of classes such as class0"),
        ("many", "labels: item 10 has the label 10; allowed are 0 to 9"),
        ("cache", "data: cache is a latent cache, and the model is one of pixels"),
        ("nothing.npz", "data: nothing.npz has nothing; this model needs images"),
        ("none.npz", "data: none.npz is empty"),
        ("other.npz", "data: images [2, 1, 8, 8]; allowed are [N, 1, 16, 16]"),
        ("objects.npz", "data: objects.npz: not readable as .npz"),
        ("wide.npz", "data: images have values up to 3; allowed are -1 to 1, or bytes"),
        ("nan.npz", "data: images: item 3 has NaN or infinite values"),
        ("whole.npz", "data: images of int32; allowed are uint8 and floats"),
        ("labels.npz", "labels: item 1 has the label 10, and 1 more are out of range; allowed"),
        ("fewer.npz", "labels: 1 labels of 3 images; one for each is needed"),
        ("floats.npz", "labels: float64 [3]; allowed are whole numbers [N]"),
        ("vectors.npz", "data: vectors.npz has lengths, sequences; this model needs images"),
    ],
)
def test_what_cannot_be_trained_on_is_named(path: str, said: str) -> None:
    make_bad()
    with pytest.raises(ArgumentError) as error:
        open_data(path, TINY)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("vectors.npz", "lengths: sequence 1 has the length 10; allowed are 1 to 9"),
        ("gaps.npz", "data: sequences: item 0 has NaN or infinite values"),
        ("flat.npz", "data: sequences [3, 9, 4]; allowed are [N, up to 9, 3]"),
        ("mixed", "data: mixed is a folder; sequences are read from .npz and .npy"),
    ],
)
def test_sequences_that_cannot_be_trained_on(path: str, said: str) -> None:
    make_bad()
    with pytest.raises(ArgumentError) as error:
        open_data(path, SEQUENCE)
    assert str(error.value).startswith(said)


def test_latents_need_a_tokenizer_or_a_cache() -> None:
    with pytest.raises(ArgumentError, match="vae: none given, and the model is one of latents"):
        open_data(photos(), LATENT)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"moments": moments()}, "moments_flip"),
        ({"moments": moments(), "moments_flip": moments()[:, :2]}, r"\[8, 2, 4\], not \[8, 4, 4\]"),
        ({"moments": moments(), "moments_flip": moments(np.nan)}, "NaN"),
    ],
)
def test_a_bad_file_of_a_cache(contents: dict[str, Any], said: str) -> None:
    np.savez(latents() / "class1" / "1.JPEG.npz", **contents)
    with pytest.raises(Unreadable, match=said) as error:
        open_data("cache", LATENT).read(4, True)
    assert error.value.path == str(Path("cache/class1/1.JPEG.npz"))


def test_an_unreadable_image_is_left_out_named_and_counted() -> None:
    folder = photos(classes=2, each=40)
    damaged = [folder / "class0" / "7.png", folder / "class1" / "39.png"]
    damaged[0].write_bytes(b"no image")
    damaged[1].write_bytes((folder / "class0" / "1.png").read_bytes()[:50])
    data = open_data(folder, TINY)
    batches = Batches(data, QUICK, range(1), workers=3)
    assert batches.per_epoch == 10
    reader = batches.from_step(0)
    labels = [next(reader)[0].labels for _ in range(10)]
    reader.close()
    assert {*map(len, labels)} == {8}
    assert {*batches.unreadable} == {*map(str, damaged)}


def test_no_readable_image_at_all() -> None:
    folder = photos(classes=1, each=8)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    reader = Batches(open_data(folder, TINY), QUICK, range(1), workers=1).from_step(0)
    with pytest.raises(ArgumentError, match=r"none of 8 files can be read, as .*png: cannot ident"):
        next(reader)
    reader.close()
