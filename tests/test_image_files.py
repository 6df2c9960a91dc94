"""Pixels and picture files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marfast.image_files import grid_side, make_grid, write_image
from marfast.pixels import to_pixels


def test_pixels_are_rounded_to_nearest_and_stay_in_range() -> None:
    values = torch.tensor([-1.0, 1.0, 0.0, -1.5, 2.0, -1 + 1.4 / 127.5, -1 + 1.6 / 127.5])
    pixels = to_pixels(values.view(1, 1, 1, -1))
    assert pixels.dtype == np.uint8
    assert pixels.ravel().tolist() == [0, 255, 128, 0, 255, 1, 2]


def test_every_grey_value_survives() -> None:
    values = torch.arange(256).float() / 127.5 - 1
    assert to_pixels(values.view(1, 1, 16, 16)).ravel().tolist() == list(range(256))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_file_holds_the_pixels(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, channels)).astype(np.uint8)
    sheet = make_grid(list(images), columns=3)
    assert sheet.shape == (grid_side(2, 4), grid_side(3, 4), channels)
    write_image(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as file:
        assert file.mode == ("L" if channels == 1 else "RGB")
        stored = np.asarray(file).reshape(sheet.shape)
    assert np.array_equal(stored, sheet)
    assert np.array_equal(stored[1:5, 6:10], images[1])
    assert np.array_equal(stored[6:10, 1:5], images[3])
    assert (stored[6:10, 11:15] == 255).all()
