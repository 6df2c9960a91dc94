"""What a generation returns: a tensor that knows how it was made, is shown, and is saved."""

import copy
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import marfast
from marfast.errors import ArgumentError
from marfast.generation import Pipeline
from marfast.generation.generated import Generated
from marfast.generation.progress import Step
from marfast.generation.runs import read_provenance
from marfast.pixels import to_pixels
from tests.models import tiny_pipeline


@pytest.fixture
def model() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture
def images(model: Pipeline) -> Generated:
    return model.generate([3, 3, None], seed=1, num_iter=2)


def test_it_is_a_tensor_and_what_is_computed_from_it_is_plain(images: Generated) -> None:
    plain = torch.empty(0).set_(images)
    assert type(images[0]) is type(images + 1) is type(images.clone()) is Tensor
    assert type(copy.deepcopy(images)) is Tensor
    assert torch.equal(pickle.loads(pickle.dumps(images)), plain)
    file = io.BytesIO()
    torch.save(images, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), plain)


def test_it_knows_how_it_was_made_until_it_is_written_to(images: Generated) -> None:
    made = images.provenance
    assert made is not None
    assert (made.labels, made.per_label, made.seed) == ("3,3,none", 1, 1)
    assert (made.first, made.count, made.settings.num_iter) == (0, 3, 2)
    assert len(made.weights) == 64
    images.mul_(0.5)
    assert images.provenance is None


def test_weights_that_changed_are_not_told(model: Pipeline, images: Generated) -> None:
    with torch.no_grad():
        model.model.module.mask_token.add_(1)
    assert images.provenance is not None
    assert images.provenance.weights == ""


def test_a_notebook_shows_it(images: Generated) -> None:
    shown = images._repr_png_()
    assert shown is not None
    with Image.open(io.BytesIO(shown)) as picture:
        sheet = np.asarray(picture)[::7, ::7]  # 16 pixels enlarged to 112
    assert np.array_equal(sheet[1:17, 1:17], to_pixels(images)[0, ..., 0])


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.npz", "folder/"])
def test_saved_files_say_how_they_were_made(images: Generated, name: str, tmp_path: Path) -> None:
    marfast.save(images, f"{tmp_path}/{name}")
    made = read_provenance(tmp_path / name)
    assert (made.labels, made.seed, made.count) == ("3,3,none", 1, 3)
    with pytest.raises(FileExistsError):
        marfast.save(images, f"{tmp_path}/{name}")
    marfast.save(images, f"{tmp_path}/{name}", force=True)


def test_other_tensors_are_saved_as_well(tmp_path: Path) -> None:
    pixels = torch.rand(3, 5, 4) * 2 - 1
    marfast.save(pixels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), to_pixels(pixels[None])[0])
    assert [image.size for image in marfast.to_pil(pixels)] == [(4, 5)]


@pytest.mark.parametrize(
    ("images", "path", "name"),
    [
        (torch.zeros(1, 2, 4, 4), "a.png", "images"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), "a.png", "images"),
        (torch.zeros(4, 4), "a/", "images"),
        (torch.zeros(1, 1, 4, 4), "a.gif", "path"),
        ([1], "a.png", "images"),
    ],
)
def test_what_cannot_be_saved(images: Tensor, path: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError) as error:
        marfast.save(images, f"{tmp_path}/{path}")
    assert error.value.name == name
    assert not [*tmp_path.iterdir()]


def test_labels_by_name() -> None:
    model = tiny_pipeline()  # its classes are a to j
    named = model.generate(["D", 3, None, "j"], seed=1, num_iter=1)
    assert torch.equal(named, model.generate([3, 3, None, 9], seed=1, num_iter=1))
    with pytest.raises(ArgumentError, match=r"'k'; allowed are 0 to 9, a, b, .*, j, or None"):
        model.generate(["k"])


def test_an_unknown_argument_is_one_of_ours() -> None:
    with pytest.raises(ArgumentError, match="foo: 1; no such name; known are num_iter"):
        tiny_pipeline().generate(3, foo=1)


def test_a_callback_sees_images_grow() -> None:
    model = tiny_pipeline()
    steps: list[Step] = []
    images = model.generate([0, 1, 2], seed=1, num_iter=3, part=2, callback=steps.append)
    assert [(s.done, s.of, s.images) for s in steps] == [
        *((done, 3, range(0, 2)) for done in (1, 2, 3)),
        *((done, 3, range(2, 3)) for done in (1, 2, 3)),
    ]
    made = [int((step.tokens != 0).any(dim=2).sum(dim=1).min()) for step in steps[:3]]
    assert 0 < made[0] < made[1] < made[2] == 16
    assert torch.equal(steps[2].preview(), images[:2])


def test_progress_may_be_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    tiny_pipeline().generate(3, num_iter=2, progress=True)
    assert "2/2" in capsys.readouterr().err


def test_it_says_what_it_is() -> None:
    said = repr(marfast.load("fashion-mnist"))
    assert said.startswith("<marfast.Pipeline fashion-mnist: images [1, 28, 28] of 10 classes")
    assert "4.4 M parameters, float32 on cpu\n num_iter " in said
